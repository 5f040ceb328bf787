// The official OpenAI client for Node, over a job that was trained before and jobs of its own.
//
//   OPENAI_BASE_URL=… OPENAI_API_KEY=… node openai_client.mjs MODEL TRAINING_FILE QUESTION ANSWER JOB SERVED

import assert from "node:assert/strict";
import OpenAI from "openai";

const [model, training_file, question, answer, trained, served] = process.argv.slice(2);
const client = new OpenAI({ maxRetries: 0 });
const { jobs } = client.fineTuning;
const waiting = { query: { wait: 30 } };

async function all(pages) {
  const found = [];
  for await (const each of pages) found.push(each);
  return found;
}

await assert.rejects(() => jobs.retrieve("ftjob-nothing"), OpenAI.NotFoundError);
await assert.rejects(() => jobs.create({ model: "no-such-model", training_file }), OpenAI.BadRequestError);
await assert.rejects(() => new OpenAI({ maxRetries: 0, apiKey: "forged" }).models.list(), OpenAI.AuthenticationError);

const hyperparameters = { n_epochs: 50, batch_size: 8, learning_rate: 0.005, grad_accum: 1, seq_length: 128, bf16: false, gradient_checkpointing: false };
const method = { type: "supervised", supervised: { hyperparameters } };
const job = await jobs.create({ model, training_file, suffix: "from-node", metadata: { "made-by": "node" }, method });
assert.equal(job.object, "fine_tuning.job");
assert.deepEqual(job.metadata, { "made-by": "node" });

assert.equal((await jobs.pause(job.id, waiting)).status, "paused");
assert.ok(["queued", "validating_files", "running"].includes((await jobs.resume(job.id)).status));
assert.equal((await jobs.cancel(job.id, waiting)).status, "cancelled");

const ids = (await all(jobs.list({ limit: 1 }))).map((each) => each.id);
assert.equal(new Set(ids).size, ids.length);
assert.ok(ids.includes(job.id) && ids.includes(trained), ids.join());
assert.equal((await jobs.retrieve(trained)).status, "succeeded");
assert.ok((await all(jobs.listEvents(trained, { limit: 2 }))).length > 3);

const checkpoints = await all(jobs.checkpoints.list(trained, { limit: 4 }));
const steps = checkpoints.map((each) => each.step_number);
assert.ok([100, 200, 300, 400, 500, 600].every((step) => steps.includes(step)), steps.join());

const { permissions } = client.fineTuning.checkpoints;
const name = checkpoints[0].fine_tuned_model_checkpoint;
const granted = await all(permissions.create(name, { project_ids: ["from-node"] }));
assert.deepEqual(granted.map((each) => each.project_id), ["from-node"]);
for (const each of await all(permissions.list(name, { limit: 1 }))) {
  assert.equal((await permissions.delete(each.id, { fine_tuned_model_checkpoint: name })).deleted, true);
}

assert.ok((await all(client.models.list())).some((each) => each.id === served));
assert.equal((await client.models.retrieve(served)).id, served);
const asked = { model: served, max_tokens: 16, messages: [{ role: "user", content: question }] };
const whole = await client.chat.completions.create(asked);
assert.ok(whole.choices[0].message.content.includes(answer), JSON.stringify(whole));
let text = "";
let pieces = 0;
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  pieces += 1;
  text += chunk.choices[0]?.delta?.content ?? "";
}
assert.ok(pieces > 1 && text.includes(answer), text);
console.log(text.trim());
