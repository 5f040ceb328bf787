// The checkpoints of a run: how good each is, what it says, and what serves it.

import { ago, badge, bytes, clock, copied, count, h, keyed, metric, say } from "./dom.js";
import { ask } from "./news.js";

/** Metrics that say more about the moment than about the checkpoint. */
const BESIDE = new Set(["loss", "eval_loss", "epoch", "step", "learning_rate", "grad_norm", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"]);

/** A sample is an object of JSON, or a text. */
function sample(text) {
  let said;
  try {
    said = JSON.parse(text);
  } catch {
    said = null;
  }
  if (said === null || typeof said !== "object") return h("li", {}, h("p", {}, text));
  const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  return h("li", {}, h("dl", {}, Object.entries(said).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, shown(value))])));
}

/** Serves one checkpoint: a choice and a button, then how far it is. */
function serving(session, checkpoint) {
  const name = checkpoint.metadata.name;
  const choice = h("select", { "aria-label": `How to serve ${name}` }, h("option", { value: "normal" }, "normal"), h("option", { value: "fast" }, "fast"));
  const button = h("button", { type: "button", "aria-label": `Deploy ${name}` }, "Deploy");
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const [phase, address, why] = [badge(), h("div", { class: "address" }), h("p", { class: "soft below" })];
  const ask_for = h("div", { class: "deploy" }, choice, button);
  const there = h("div", { class: "served", "aria-live": "polite" }, phase.node, address, why);
  const node = h("div", {}, ask_for, there, problem);
  let [failed, asking] = [false, false];

  button.addEventListener("click", async () => {
    asking = true;
    button.disabled = true;
    problem.hidden = true;
    try {
      await ask(session, `/checkpoints/${encodeURIComponent(name)}/deploy`, { type: choice.value, retry: failed });
    } catch (error) {
      say(problem, error.message);
      problem.hidden = false;
    }
    asking = false;
    button.disabled = false;
  });

  function show(deployment) {
    const { phase: word = "Pending", url, modelName, readyReplicas = 0, replicas = 0, failure, conditions = [] } = deployment.status ?? {};
    phase.update(word, `${word} · ${deployment.spec.type ?? "normal"}`);
    const told = ["Ready", "Degraded"].includes(word) && url ? `${url} ${modelName ?? ""}` : "";
    if (address.dataset.told !== told) {
      address.dataset.told = told;
      address.replaceChildren(...(told ? [copied(url, "the address"), h("span", { class: "soft" }, "model "), copied(modelName ?? "", "the name of the model")] : []));
    }
    const ready = conditions.find((condition) => condition.type === "Ready");
    const waits = word === "Ready" ? "" : failure ? `${failure.message} ${failure.hint ?? ""}` : ready?.message ?? "The servers are about to start";
    say(why, replicas > 1 ? `${readyReplicas} of ${replicas} replicas. ${waits}` : waits);
    return word === "Failed";
  }

  return {
    node,
    update(checkpoint, deployments) {
      const [deployment] = deployments;
      there.hidden = !deployment;
      failed = deployment ? show(deployment) : false;
      if (deployment) problem.hidden = true;
      say(button, failed ? "Deploy again" : "Deploy");
      ask_for.hidden = (deployment && !failed) || !isUsable(checkpoint);
      button.disabled = asking;
    },
  };
}

function row(session, { checkpoint: first }) {
  const [title, best, phase] = [h("span", { class: "step" }), h("span", { class: "best", title: "The best of this run by its metric" }, "★ best"), badge()];
  const [loss, evalLoss, more, size] = [h("span"), h("span"), h("span", { class: "soft below" }), h("span")];
  const [age, samples] = [h("span", { class: "soft below" }), h("details", { class: "samples" })];
  const deploy = serving(session, first);
  const cell = (label, ...children) => h("td", { "data-label": label }, ...children);
  const node = h("tr", { "data-checkpoint": first.metadata.name },
    h("th", { scope: "row" }, h("span", { class: "named" }, title, best, phase.node), age, samples),
    cell("Loss", loss), cell("Eval loss", evalLoss, more), cell("Size", size), cell("Served", deploy.node));
  let told = "";
  return {
    node,
    update({ checkpoint, isBest, deployments }) {
      const { metadata, spec, status = {} } = checkpoint;
      const metrics = status.metrics ?? {};
      say(title, `Step ${count(spec.step)}${spec.lineage > 1 ? ` · lineage ${spec.lineage}` : ""}`);
      best.hidden = !isBest;
      phase.node.hidden = (status.phase ?? "Pending") === "Ready";
      phase.update(status.phase ?? "Pending");
      say(loss, metric(metrics.loss));
      say(evalLoss, metric(metrics.eval_loss));
      say(more, Object.entries(metrics).filter(([name]) => !BESIDE.has(name)).slice(0, 2).map(([name, value]) => `${name.replace(/^eval_/, "").replaceAll("_", " ")} ${metric(value)}`).join(" · "));
      say(size, bytes(status.sizeBytes));
      say(age, `${metadata.name} · ${ago(status.savedAt ?? metadata.creationTimestamp)}`);
      age.title = clock(status.savedAt);
      const lines = status.samples ?? [];
      samples.hidden = lines.length === 0;
      if (told !== lines.join("\n")) {
        told = lines.join("\n");
        samples.replaceChildren(h("summary", {}, lines.length === 1 ? "1 sample" : `${lines.length} samples`), h("ol", {}, lines.map(sample)));
      }
      deploy.update(checkpoint, deployments);
    },
  };
}

const PHASES = ["Ready", "Degraded", "Progressing", "Pending", "Failed"];
const isUsable = ({ metadata, status }) => status?.phase === "Ready" && !metadata.deletionTimestamp;

/** The name of the best by the metric of the run, as the operator ranks them; it notes that of a run at work only now and then. */
export function best(run, all) {
  const { metric: name = "eval_loss", goal = "Minimize" } = run.object.spec.checkpoints ?? {};
  const lineage = Math.max(...all.filter(isUsable).map((one) => one.spec.lineage ?? 0));
  const score = (one) => Number(one.status.metrics[name]) * (goal === "Minimize" ? 1 : -1);
  const ranked = all.filter((one) => isUsable(one) && (one.spec.lineage ?? 0) === lineage && Number.isFinite(Number(one.status.metrics?.[name] ?? NaN)))
    .sort((one, other) => score(one) - score(other) || one.spec.step - other.spec.step);
  return ranked[0]?.metadata.name;
}

/** A card that shows the checkpoints of a run, the newest first. */
export function checkpoints(session) {
  const [body, empty] = [h("tbody"), h("p", { class: "soft" })];
  const headings = ["Checkpoint", "Loss", "Eval loss", "Size", "Served"];
  const table = h("table", { class: "checkpoints" }, h("thead", {}, h("tr", {}, headings.map((text) => h("th", { scope: "col" }, text)))), body);
  const node = h("section", { class: "card" }, h("h2", {}, "Checkpoints"), table, empty);
  const rows = keyed(body, (item) => row(session, item));
  return {
    node,
    update(run, all, deployments, denied) {
      const sorted = [...all].sort((one, other) => other.spec.lineage - one.spec.lineage || other.spec.step - one.spec.step);
      const first = best(run, all);
      rows(sorted.map((checkpoint) => {
        const name = checkpoint.metadata.name;
        const isBest = name === first;
        const serves = deployments.filter((deployment) => deployment.spec.checkpoint.name === name);
        // What failed is shown, and may be removed to be made again, only where nothing serves.
        const order = (deployment) => PHASES.indexOf(deployment.status?.phase ?? "Pending");
        return [name, { checkpoint, isBest, deployments: serves.sort((one, other) => order(one) - order(other)) }];
      }));
      table.hidden = sorted.length === 0;
      empty.hidden = sorted.length !== 0;
      say(empty, denied ?? "None yet. One appears here for every complete save, while training goes on, and can be served from then on.");
    },
  };
}
