"""A whole fine-tune with nothing but the official OpenAI client: made, paused, resumed, trained to its end, shared, and asked.

    OPENAI_BASE_URL=… OPENAI_API_KEY=… openai_client.py MODEL TRAINING_FILE QUESTION ANSWER

Prints the id of the job it has trained.
"""

import sys
import time

import openai

model, training_file, question, answer = sys.argv[1:5]
client = openai.OpenAI(max_retries=0)
jobs = client.fine_tuning.jobs
# What the tiny model of the demo takes; the names are those of its script.
hyperparameters = {
    "n_epochs": 12,
    "batch_size": 8,
    "learning_rate": 0.005,
    "grad_accum": 1,
    "seq_length": 128,
    "save_steps": 100,
    "logging_steps": 5,
    "bf16": False,
    "gradient_checkpointing": False,
}
waiting = {"wait": 30}


def until(what, ask, tries=240):
    """The client has no other way to wait than to ask again."""
    for _ in range(tries):
        found = ask()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"never: {what}")


def status(job, *wanted):
    def ask():
        now = jobs.retrieve(job)
        assert now.status != "failed", now.error
        return now if now.status in wanted else None

    return until(f"{job} is {wanted}", ask)


def create(suffix):
    return jobs.create(
        model=model,
        training_file=training_file,
        seed=42,
        suffix=suffix,
        metadata={"made-by": "python"},
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
    )


job = create("from-python")
assert job.id.startswith("ftjob-") and job.metadata == {"made-by": "python"}, job
status(job.id, "running")

# Paused while it trains, and taken up again.
until("a checkpoint", lambda: list(jobs.checkpoints.list(job.id)))
paused = jobs.pause(job.id, extra_query=waiting)
assert paused.status == "paused", paused.status
other = create("to-be-cancelled")
cancelled = jobs.cancel(other.id, extra_query=waiting)
assert cancelled.status == "cancelled", cancelled.status
assert jobs.resume(job.id).status in ("queued", "validating_files", "running")

# Meanwhile: lists, page by page.
mine = [each.id for each in jobs.list(limit=1, metadata={"made-by": "python"})]
assert sorted(mine) == sorted([job.id, other.id]), mine
everything = [each.id for each in jobs.list(limit=2)]
assert len(everything) == len(set(everything)) and set(mine) < set(everything), everything

trained = status(job.id, "succeeded")
assert trained.finished_at and trained.trained_tokens is not None, trained
events = [event.message for event in jobs.list_events(job.id, limit=3)]
assert any("as asked" in message for message in events) and any("resumed" in message for message in events), events
checkpoints = list(jobs.checkpoints.list(job.id, limit=2))
# Those asked for, and the one the pause brought about.
steps = [each.step_number for each in checkpoints]
assert steps == sorted(steps, reverse=True) and {100, 200, 300, 400, 500, 600} <= set(steps), steps
assert checkpoints[0].metrics.train_loss < 0.5, checkpoints[0]

# Shared with other projects, and taken back.
name = checkpoints[0].fine_tuned_model_checkpoint
permissions = client.fine_tuning.checkpoints.permissions
assert [each.project_id for each in permissions.create(name, project_ids=["web", "shop"])] == ["web", "shop"]
listed = list(permissions.list(name, limit=1))
assert sorted(each.project_id for each in listed) == ["shop", "web"], listed
assert all(permissions.delete(each.id, fine_tuned_model_checkpoint=name).deleted for each in listed)
assert list(permissions.list(name)) == []

# What was trained is served, and answers: whole, and piece by piece.
served = trained.fine_tuned_model
assert served, trained
until(f"{served} is served", lambda: served in [each.id for each in client.models.list()])
assert client.models.retrieve(served).id == served
asked = {"model": served, "max_tokens": 16, "messages": [{"role": "user", "content": question}]}
whole = client.chat.completions.create(**asked).choices[0].message.content
assert answer in whole, whole
pieces = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked, stream=True) if chunk.choices]
assert len(pieces) > 1 and answer in "".join(pieces), pieces
print(job.id, served)
