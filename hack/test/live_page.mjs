// Clicks through the live page in a headless Chromium, and asserts what is shown. The test that starts it makes the world it finds, and
// changes it where a line asks for that. See live-page.sh.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const { PAGE_URL: url, PAGE_KEY: key, PAGE_READER: reader, PAGE_MODULES: modules, PAGE_SHOTS: shots, PAGE_PICTURE: picture, PAGE_CHROMIUM: chromium_path } = process.env;
const { chromium } = createRequire(`${modules}/`)("playwright-core");
const PATIENCE = 60_000;
const FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
/** Has the test change the world. */
async function world(change) {
  console.log(change);
  assert.equal((await answers.next()).value, "done");
}

const profile = await mkdtemp(join(tmpdir(), "live-page-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: chromium_path ?? "/usr/bin/chromium", headless: true, chromiumSandbox: false, args: FLAGS, viewport: { width: 1200, height: 900 },
  colorScheme: "light", permissions: ["clipboard-read", "clipboard-write"],
});
context.setDefaultTimeout(PATIENCE);
const page = context.pages()[0] ?? await context.newPage();
const complaints = [];
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("console", (message) => message.type() === "error" && complaints.push(`${message.text()} ${message.location().url}`));
const addresses = [];
page.on("request", (request) => addresses.push(request.url()));

const shot = async (name, options = {}) => shots && page.screenshot({ path: join(shots, `${name}.png`), ...options });
const row = (name) => page.locator(`tr[data-run="${name}"]`);
const checkpoint = (step) => page.locator(`tr[data-checkpoint="support-bot-step-${step}"]`);
/** Waits until there is exactly this text, or what matches it. */
const shows = (locator, text) => locator.filter({ hasText: text }).first().waitFor();

async function signIn() {
  await page.goto(url.replace(/\/$/, ""));
  assert.equal(page.url(), url, "without its slash the page is found too");
  await shot("sign-in");
  await page.getByLabel("Key").fill("not-a-key");
  await page.keyboard.press("Enter");
  await shows(page.getByRole("alert"), /not valid/);
  assert.equal(await page.evaluate(() => sessionStorage.length), 0, "a key that is not good is forgotten");
  complaints.splice(0, complaints.length, ...complaints.filter((text) => !text.includes("401")));
  await page.getByLabel("Key").fill(key);
  await page.getByRole("button", { name: "Show my runs" }).click();
}

async function list() {
  await shows(row("support-bot").locator(".badge"), "Running");
  await shows(row("support-bot"), "1,620 of 2,400");
  await shows(row("tone-of-voice").locator(".badge"), "Succeeded");
  await shows(row("long-answers"), "GpuOutOfMemory");
  await shows(page.locator("#connection"), "Live");
  await world("make another run");
  await shows(row("late-arrival").locator(".badge"), "Paused");
  await shot("list-light");
  const search = page.getByLabel("Find a run");
  await search.fill("no such run");
  await shows(page.locator("main"), "No run matches");
  await search.fill("tone of");
  await row("tone-of-voice").waitFor();
  assert.equal(await page.locator("tr[data-run]").count(), 1);
  await search.fill("");
  await row("support-bot").waitFor();
}

async function failed() {
  await page.getByRole("link", { name: "Long answers" }).click();
  const alert = page.getByRole("alert").first();
  await shows(alert, "GpuOutOfMemory");
  await shows(alert, /What helps: halve batch_size/);
  await shot("failed-light");
  await page.getByRole("link", { name: "All runs" }).click();
}

async function curves() {
  await row("support-bot").getByRole("link").focus();
  await page.keyboard.press("Enter");
  await shows(page.getByRole("heading", { level: 1 }), "Support bot");
  const drawing = page.locator("svg.drawing");
  await drawing.locator('path[data-curve="eval_loss"]').waitFor();
  assert.equal(await drawing.getAttribute("data-scale"), "linear");
  const drawn = () => drawing.locator('path[data-curve="loss"]').getAttribute("d");
  const plain = await drawn();
  assert.ok(plain.split("L").length > 100, "every point is drawn");
  await page.getByRole("switch", { name: "Log scale" }).check();
  await page.locator('svg.drawing[data-scale="log"]').waitFor();
  const logarithmic = await drawn();
  assert.notEqual(logarithmic, plain);
  await page.getByRole("switch", { name: "Smooth" }).check();
  assert.notEqual(await drawn(), logarithmic);
  assert.equal(await drawing.locator("path.faint").count(), 1, "what was said stays to be seen");
  await drawing.hover({ position: { x: 400, y: 120 } });
  await shows(page.locator(".readout"), /Step \d.*Training loss \d.*Evaluation loss \d/);
  await drawing.focus();
  await page.keyboard.press("Home");
  await shows(page.locator(".readout"), /^Step 10 /);
  await page.keyboard.press("Escape");
  await shows(page.locator(".readout"), /^Step 1,6\d0/);
  assert.equal(await drawing.locator("g.save").count(), 4);
  await page.getByLabel("Which curves").selectOption("learning_rate");
  await drawing.locator('path[data-curve="learning_rate"]').waitFor();
  await page.getByLabel("Which curves").selectOption("losses");
}

async function told() {
  await shows(page.locator(".steps"), "Step 1,620 of 2,400");
  await shows(page.locator(".tile"), /Hardware.*a100-80gb/);
  await shows(page.locator(".log"), /'loss': 0\.\d+, 'grad_norm'/);
  await shows(page.locator(".log .line.warn"), "no padding token");
  await checkpoint(1600).locator(".samples summary").click();
  await shows(checkpoint(1600), "I am sorry to hear that");
  await checkpoint(1600).locator(".samples summary").click();
  const served = page.locator("details", { hasText: "Conditions" });
  await served.locator("summary").click();
  await shows(served, /Ready (True|False)/);
  await served.locator("summary").click();
}

async function live() {
  await world("train on");
  await checkpoint(2000).waitFor();
  await page.locator('svg.drawing g.save[data-step="2000"]').waitFor();
}

/** What is shown stays while nothing is heard, and goes on when something is. */
async function unplugged() {
  await world("stop the gateway");
  await shows(page.locator("#connection"), "Reconnecting");
  await shows(page.locator("#trouble"), "The gateway does not answer");
  assert.ok(await checkpoint(2000).isVisible());
  await shot("unplugged");
  await world("start the gateway");
  await shows(page.locator("#connection"), "Live");
  await page.locator("#trouble").waitFor({ state: "hidden" });
  complaints.splice(0, complaints.length, ...complaints.filter((text) => !/ERR_CONNECTION|ERR_INCOMPLETE/.test(text)));
}

async function deploy() {
  await page.getByLabel("How to serve support-bot-step-1600").selectOption("fast");
  await page.getByRole("button", { name: "Deploy support-bot-step-1600" }).click();
  await shows(checkpoint(1600).locator(".badge"), /^Ready · fast$/);
  await shows(checkpoint(1600), /support-bot-step-1600\..*\.svc/);
  assert.equal(await page.locator("span.best").locator("visible=true").count(), 1);
  await shows(checkpoint(2000), "★ best");
  assert.equal(await page.getByRole("button", { name: "Deploy support-bot-step-1600" }).isVisible(), false);
  await checkpoint(1600).getByRole("button", { name: "Copy the address" }).click();
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^http:\/\/support-bot-step-1600\./);
}

/** The page some hours later: what a reader sees of a run that has trained for a while. */
async function pictures() {
  await page.evaluate(() => scrollTo(0, 0));
  if (picture) {
    // Progress is written twice a minute at most.
    while (!(await page.locator(".steps").textContent()).includes("2,000")) {
      await world("train on");
      await page.waitForTimeout(3000);
    }
    await page.clock.setFixedTime(Date.now() + 108 * 60_000);
    await page.setViewportSize({ width: 1200, height: 1380 });
    await page.waitForTimeout(1500);
    await page.screenshot({ path: picture });
    await page.setViewportSize({ width: 1200, height: 900 });
  }
  await shot("run-light", { fullPage: true });
  await page.emulateMedia({ colorScheme: "dark" });
  await shot("run-dark", { fullPage: true });
  await page.setViewportSize({ width: 390, height: 844 });
  await shot("run-narrow", { fullPage: true });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(wide, 0, "nothing sticks out on a telephone");
  await page.goto(url);
  await row("support-bot").waitFor();
  await shot("list-narrow");
  await page.setViewportSize({ width: 1200, height: 900 });
  await shot("list-dark");
}

async function leave() {
  await page.goto(`${url}#/runs/no-such-run`);
  await shows(page.locator("main"), "There is no run no-such-run any more");
  complaints.splice(0, complaints.length, ...complaints.filter((text) => !text.includes("404")));
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Key").waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
}

/** Who only reads is told so. */
async function read() {
  await page.getByLabel("Key").fill(reader);
  await page.getByRole("button", { name: "Show my runs" }).click();
  await row("support-bot").getByRole("link").click();
  await page.getByRole("button", { name: "Deploy support-bot-step-800" }).click();
  await shows(checkpoint(800).getByRole("alert"), /fine-tuning:write/);
  complaints.splice(0, complaints.length, ...complaints.filter((text) => !text.includes("403")));
}

try {
  for (const step of [signIn, list, failed, curves, told, live, unplugged, deploy, pictures, leave, read]) {
    const begin = Date.now();
    await step();
    console.log(`${step.name}: ${Date.now() - begin} ms`);
  }
  assert.deepEqual(complaints, [], "the browser complains of nothing");
  const origin = new URL(url).origin;
  assert.deepEqual(addresses.filter((address) => !address.startsWith(origin) || address.includes(key)), [], "nobody else is asked, and no address has the key");
} catch (error) {
  await shot("failure", { fullPage: true });
  console.log(`complaints: ${JSON.stringify(complaints)}`);
  throw error;
} finally {
  await context.close();
  await rm(profile, { recursive: true, force: true });
}
process.exit(0);
