// The runs of a project, newest first.

import { ago, badge, clock, count, h, keyed, left, metric, notice, say } from "./dom.js";
import { follow, kept } from "./news.js";

const FIRST_RUN = `apiVersion: finetune.dev/v1alpha1
kind: FineTune
metadata: {name: first-run}
spec:
  baseModel: {name: qwen2.5-0.5b-instruct}
  dataset: {training: {huggingFace: {repo: trl-lib/Capybara}}}
  parameters: {use_lora: true, epochs: 1, save_steps: 50}`;

function row(run) {
  const phase = badge();
  const cell = (label, ...children) => h("td", { "data-label": label }, ...children);
  const [title, below] = [h("a", { href: `#/runs/${encodeURIComponent(run.name)}` }), h("span", { class: "soft below" })];
  const [bar, steps] = [h("progress", { max: 100, "aria-label": `Progress of ${run.name}` }), h("span", { class: "soft below" })];
  const [eta, loss, evalLoss, age] = [h("span"), h("span"), h("span", { class: "soft below" }), h("time")];
  const node = h("tr", { "data-run": run.name },
    h("th", { scope: "row" }, title, below),
    cell("Phase", phase.node), cell("Progress", bar, steps), cell("Time left", eta), cell("Loss", loss, evalLoss),
    cell("Created", age));
  return {
    node,
    update(run) {
      say(title, run.displayName || run.name);
      say(below, run.displayName ? `${run.name} · ${run.baseModel}` : run.baseModel);
      phase.update(run.phase);
      bar.hidden = run.percent === null;
      bar.value = run.percent ?? 0;
      const queued = run.queuePosition ? `place ${run.queuePosition} in the queue` : "";
      say(steps, run.failure ?? (run.totalSteps ? `${run.percent ?? 0} % · ${count(run.step)} of ${count(run.totalSteps)}` : queued));
      say(eta, left(run));
      say(loss, metric(run.loss));
      say(evalLoss, run.evalLoss ? `eval ${metric(run.evalLoss)}` : "");
      say(age, ago(run.created));
      age.title = clock(run.created);
    },
  };
}

/** Shows the list until it is closed. */
export function list(place, session, on) {
  const [body, empty, total] = [h("tbody"), h("div", { hidden: true }), h("span", { class: "soft", role: "status" })];
  const search = h("input", { type: "search", placeholder: "Find a run", "aria-label": "Find a run by name or description" });
  const headings = ["Run", "Phase", "Progress", "Time left", "Loss", "Created"];
  const table = h("table", { class: "runs", hidden: true }, h("thead", {}, h("tr", {}, headings.map((text) => h("th", { scope: "col" }, text)))), body);
  place.replaceChildren(h("div", { class: "heading" }, h("h1", {}, "Runs"), total, h("span", { class: "grow" }), search), table, empty);

  const rows = keyed(body, row);
  let stream = null;
  const known = kept(draw);

  function draw() {
    if (!known.isKnown("runs")) return;
    const runs = known.items("runs").sort((one, other) => other.created.localeCompare(one.created) || other.name.localeCompare(one.name));
    rows(runs.map((run) => [run.name, run]));
    say(total, runs.length ? `${runs.length >= 100 ? "the newest " : ""}${runs.length}` : "");
    table.hidden = runs.length === 0;
    empty.hidden = runs.length !== 0;
    if (runs.length === 0) empty.replaceChildren(search.value ? nothingFound() : nothingYet());
  }

  const nothingFound = () => notice("", "No run matches", h("p", {}, "Names, display names and descriptions are searched."));
  const nothingYet = () => notice("", "No runs yet", h("p", {}, "Apply one, and it appears here at once:"),
    h("pre", { class: "command" }, `kubectl apply -f - <<'EOF'\n${FIRST_RUN}\nEOF`));

  function listen() {
    stream?.close();
    const query = search.value.trim() ? `?search=${encodeURIComponent(search.value.trim())}` : "";
    stream = follow(session, `/runs/events${query}`, { ...known.hear, ...on });
  }

  let typing;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(listen, 250);
  });
  const ticking = setInterval(draw, 1000);
  listen();
  return {
    close() {
      clearInterval(ticking);
      clearTimeout(typing);
      stream.close();
    },
  };
}
