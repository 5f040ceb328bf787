// One run: how far it is, its curves, its checkpoints, and what it leaves to read.

import { ago, badge, between, clock, count, duration, h, keyed, left, metric, notice, say } from "./dom.js";
import { chart } from "./chart.js";
import { best, checkpoints } from "./checkpoints.js";
import { log } from "./log.js";
import { follow, kept } from "./news.js";

/** The curves that are shown first. */
const LOSSES = [["loss", "Training loss"], ["eval_loss", "Evaluation loss"]];
const OVER = ["Succeeded", "Failed", "Stopped"];

/** What a run has cost until now: what is on record, and what the attempt at work has held since. */
function cost(status) {
  if (!status.cost) return "–";
  const since = (status.attempts ?? []).findLast((attempt) => attempt.turnStart)?.turnStart;
  const held = since ? Math.max(0, between(since)) / 3600 : 0;
  return `${(Number(status.cost.accrued) + held * Number(status.cost.perHour)).toFixed(2)} ${status.cost.currency ?? ""}`;
}

/** When the first attempt began, or got its nodes where no more is known yet. */
function begun(run) {
  const [first] = run.object.status?.attempts ?? [];
  return run.started ?? first?.startTime ?? first?.turnStart;
}

function facts(run) {
  const { spec, status = {} } = run.object;
  const progress = status.progress ?? {};
  const metrics = progress.metrics ?? {};
  const epoch = progress.epoch ? `${Number(progress.epoch).toFixed(2)}${progress.totalEpochs ? ` of ${Number(progress.totalEpochs)}` : ""}` : "–";
  const since = begun(run);
  const gpus = status.resolved ? `${status.resolved.gpus} GPU${status.resolved.gpus === 1 ? "" : "s"}` : "";
  return [
    ["Loss", metric(metrics.loss ?? metrics.train_loss), metrics.learning_rate ? `learning rate ${metric(metrics.learning_rate)}` : ""],
    ["Eval loss", metric(metrics.eval_loss), ""],
    ["Epoch", epoch, progress.trainedTokens ? `${count(progress.trainedTokens)} tokens` : ""],
    ["Time", since ? duration(between(since, run.finished)) : "–", since ? `since ${clock(since)}` : "not begun"],
    ["Cost", cost(status), status.cost ? `${Number(status.cost.perHour).toFixed(2)} an hour` : ""],
    ["Hardware", status.resolved?.hardware ?? spec.hardware?.profile ?? "default", gpus],
    ["Attempt", status.attempt ? String(status.attempt) : "–", status.resumedFrom ? `went on from step ${count(status.resumedFrom)}` : ""],
  ];
}

function tile([label]) {
  const [value, below] = [h("dd", { class: "value" }), h("dd", { class: "soft below" })];
  return {
    node: h("div", { class: "tile" }, h("dt", {}, label), value, below),
    update([, text, more]) {
      say(value, text);
      say(below, more);
    },
  };
}

/** The head of the page: name, phase, what is wrong or waited for, how far it is. */
function head() {
  const [title, phase, about, trouble] = [h("h1"), badge(), h("p", { class: "soft" }), h("div", { class: "trouble" })];
  const [bar, steps, eta] = [h("progress", { max: 100, "aria-label": "Progress" }), h("span", { class: "steps" }), h("span", { class: "eta" })];
  const progress = h("div", { class: "progress" }, bar, h("div", { class: "under" }, steps, eta));
  const tiles = h("dl", { class: "tiles" });
  const shown = keyed(tiles, tile);
  let told = "";
  function wrong(status, phase) {
    const ready = (status.conditions ?? []).find((condition) => condition.type === "Ready");
    const { failure } = status;
    const waits = ["Pending", "Queued", "Preparing"].includes(phase) ? status.queue?.reason ?? ready?.message : null;
    const key = JSON.stringify([phase === "Failed" && failure, waits]);
    if (key === told) return;
    told = key;
    if (phase === "Failed" && failure) {
      const help = failure.hint ? [h("p", { class: "hint" }, h("strong", {}, "What helps: "), failure.hint)] : [];
      trouble.replaceChildren(notice("bad", failure.reason, h("p", {}, failure.message), ...help));
    } else trouble.replaceChildren(...(waits ? [notice("", `${phase}: waiting`, h("p", {}, waits))] : []));
  }
  const node = h("div", {}, h("nav", { "aria-label": "Where you are" }, h("a", { href: "#/" }, "← All runs")),
    h("div", { class: "heading" }, title, phase.node), about, trouble, h("section", { class: "card" }, progress, tiles));
  return {
    node,
    update(run) {
      const { spec, status = {}, metadata } = run.object;
      say(title, run.displayName || run.name);
      phase.update(run.phase);
      const data = spec.dataset?.name ?? spec.dataset?.training?.huggingFace?.repo ?? "its own data";
      say(about, [run.displayName && run.name, `${run.baseModel} on ${data}`, spec.description, `created ${ago(metadata.creationTimestamp)}`]
        .filter(Boolean).join(" · "));
      wrong(status, run.phase);
      bar.value = run.percent ?? (run.phase === "Succeeded" ? 100 : 0);
      say(steps, run.totalSteps ? `Step ${count(run.step)} of ${count(run.totalSteps)} · ${run.percent ?? 0} %` : run.step ? `Step ${count(run.step)}` : "No step yet");
      say(eta, run.phase === "Running" ? `Time left: ${left(run)}` : OVER.includes(run.phase) && run.finished ? `ended ${ago(run.finished)}` : "");
      eta.hidden = run.phase === "Running" && left(run) === "–";
      shown(facts(run).map((fact) => [fact[0], fact]));
    },
  };
}

/** A card with the curves, and a choice among them. */
function curves() {
  const drawing = chart();
  const choice = h("select", { id: "metric", "aria-label": "Which curves" });
  const node = h("section", { class: "card" }, h("div", { class: "heading" }, h("h2", {}, "Curves"), h("span", { class: "grow" }), choice), drawing.node);
  let [series, saves] = [[], []];
  const points = ({ steps, values }) => steps.map((step, index) => [step, Number(values[index])]);
  function draw() {
    const names = choice.value === "losses" ? LOSSES : [[choice.value, choice.value]];
    const found = names.map(([name, label]) => [series.find((one) => one.name === name), name, label]).filter(([one]) => one);
    drawing.draw({ curves: found.map(([one, name, label]) => ({ name, label, points: points(one) })), saves });
  }
  choice.addEventListener("change", draw);
  return {
    node,
    close: drawing.close,
    update(history, all, run) {
      series = history?.spec?.series ?? [];
      const [lineage, first] = [run.object.status?.lineage ?? 1, best(run, all)];
      saves = all.filter((one) => (one.spec.lineage || 1) === lineage && one.status?.phase === "Ready")
        .map((one) => ({ step: one.spec.step, best: one.metadata.name === first }));
      const others = series.map(({ name }) => name).filter((name) => !LOSSES.some(([known]) => known === name)).sort();
      if (choice.dataset.names !== others.join()) {
        const chosen = choice.value;
        choice.dataset.names = others.join();
        choice.replaceChildren(h("option", { value: "losses" }, "Loss"), ...others.map((name) => h("option", { value: name }, name)));
        choice.value = others.includes(chosen) ? chosen : "losses";
      }
      draw();
    },
  };
}

/** What is for those who want to know more: conditions, attempts, events, parameters. */
function details() {
  const lines = (class_) => h("ul", { class: class_ });
  const [conditions, attempts, events, parameters] = [lines("plain"), lines("plain"), lines("plain"), h("pre", { class: "command" })];
  const part = (title, inner) => h("details", {}, h("summary", {}, title), inner);
  const node = h("section", { class: "card more" }, part("Conditions", conditions), part("Attempts", attempts), part("Events", events), part("Parameters", parameters));
  const line = (kind, title, ...text) => h("li", { class: kind }, h("strong", {}, title), " ", ...text);
  let told = {};
  function fill(name, value, show) {
    const key = JSON.stringify(value);
    if (told[name] !== key) show(value);
    told = { ...told, [name]: key };
  }
  return {
    node,
    update(run, history) {
      const { spec, status = {} } = run.object;
      fill("conditions", status.conditions ?? [], (all) => conditions.replaceChildren(...all.map((one) => line("",
        `${one.type} ${one.status}`, `${one.reason}: ${one.message} `, h("span", { class: "soft" }, clock(one.lastTransitionTime))))));
      fill("attempts", status.attempts ?? [], (all) => attempts.replaceChildren(...[...all].reverse().map((one) => line("",
        `Attempt ${one.number}`, `steps ${count(one.fromStep ?? 0)} to ${count(one.toStep ?? 0)} `,
        h("span", { class: "soft" }, `${clock(one.startTime)}${one.reason ? ` · ${one.reason}` : ""}`)))));
      fill("events", history?.spec?.events ?? [], (all) => events.replaceChildren(...[...all].reverse().map((one) => line(one.level,
        one.reason, `${one.message} `, h("span", { class: "soft" }, clock(one.time))))));
      fill("parameters", spec.parameters ?? {}, (all) => say(parameters, JSON.stringify(all, null, 2)));
    },
  };
}

/** Shows a run until it is closed. */
export function run(place, session, name, on) {
  const parts = { head: head(), curves: curves(), checkpoints: checkpoints(session), log: log(session, name), details: details() };
  const page = h("div", { class: "run", hidden: true }, ...Object.values(parts).map((part) => part.node));
  place.replaceChildren(page);
  const denied = {};
  const known = kept(changed);

  function changed(section) {
    const [run] = known.items("run");
    if (!run) return;
    const [history] = known.items("history");
    page.hidden = false;
    parts.head.update(run);
    parts.checkpoints.update(run, known.items("checkpoints"), known.items("deployments"), denied.checkpoints);
    if (section === "deployments") return;
    parts.curves.update(history, known.items("checkpoints"), run);
    parts.details.update(run, history);
    if (section === "run" || section === "history") parts.log.heard();
  }

  function tick() {
    const [run] = known.items("run");
    if (!run) return;
    parts.head.update(run);
    parts.checkpoints.update(run, known.items("checkpoints"), known.items("deployments"), denied.checkpoints);
  }

  const hear = {
    ...known.hear,
    ...on,
    denied({ section, message }) {
      denied[section] = message;
      changed(section);
    },
  };
  const stream = follow(session, `/runs/${encodeURIComponent(name)}/events`, hear);
  const ticking = setInterval(tick, 1000);
  return {
    close() {
      clearInterval(ticking);
      stream.close();
      parts.log.close();
      parts.curves.close();
    },
  };
}
