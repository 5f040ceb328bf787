"""The official OpenAI client against a gateway: makes a job, pages, follows it to its end, reads what it left, and shares a checkpoint.

    OPENAI_BASE_URL=http://…/v1 OPENAI_API_KEY=TOKEN openai_client.py MODEL TRAINING_FILE

The run itself is trained by whoever started the script: it waits until the job leaves `validating_files`, prints its id, and goes on when a line
arrives on its input.
"""

import sys

import openai

model, training_file = sys.argv[1:3]
client = openai.OpenAI(max_retries=0)
jobs = client.fine_tuning.jobs


def refused(kind, call):
    try:
        call()
    except kind as error:
        assert error.body and error.body["message"] and "type" in error.body and "code" in error.body and "param" in error.body, error.body
        assert error.request_id, "an error has the id of its request"
        return error
    raise AssertionError(f"{kind.__name__} was expected")


# What cannot be is refused with the exceptions a client expects.
refused(openai.NotFoundError, lambda: jobs.retrieve("ftjob-nothing"))
refused(openai.BadRequestError, lambda: jobs.create(model="no-such-model", training_file=training_file))
refused(openai.AuthenticationError, lambda: client.with_options(api_key="forged").fine_tuning.jobs.list())
error = refused(openai.BadRequestError, lambda: jobs.create(model=model, training_file=training_file, suffix="s" * 65))
assert error.param == "suffix", error.param

# A job is made with every documented argument.
job = jobs.create(
    model=model,
    training_file=training_file,
    seed=7,
    suffix="from-python",
    metadata={"team": "client"},
    method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 2}}},
)
assert job.id.startswith("ftjob-") and job.object == "fine_tuning.job" and job.seed == 7, job
assert job.hyperparameters.n_epochs == 2 and job.hyperparameters.batch_size == 4, job.hyperparameters
assert job.hyperparameters.learning_rate_multiplier == 2, job.hyperparameters
assert job.method.type == "supervised" and job.method.supervised.hyperparameters.n_epochs == 2, job.method
assert job.metadata == {"team": "client"} and job.model == model and job.error is None, job
assert job.training_file == training_file and job.validation_file is None and job.result_files == [], job
assert job.fine_tuned_model is None and job.finished_at is None, job

# Its list is paged by the client itself.
others = [jobs.create(model=model, training_file=training_file).id for _ in range(4)]
paged = [each.id for each in jobs.list(limit=2)]
assert sorted(paged) == sorted([job.id, *others]), paged
assert [each.id for each in jobs.list(metadata={"team": "client"})] == [job.id]

# It is paused, goes on, and another one is cancelled.
assert jobs.pause(others[0]).status in ("paused", "pausing")
assert jobs.resume(others[0]).status in ("queued", "validating_files", "running")
assert jobs.cancel(others[0]).status in ("cancelled", "running")
assert jobs.checkpoints.list(job.id).data == []

print(sys.stdin.readline().strip() or "no trained job was named", flush=True)
trained = jobs.retrieve("bot")
assert trained.status == "succeeded" and trained.fine_tuned_model and trained.finished_at, trained
refused(openai.ConflictError, lambda: jobs.cancel(trained.id))

events = list(jobs.list_events(trained.id, limit=2))
assert len(events) > 3 and events[-1].message.startswith("Created fine-tuning job"), events
assert len({event.id for event in events}) == len(events), "each event once"

checkpoints = list(jobs.checkpoints.list(trained.id, limit=3))
steps = [checkpoint.step_number for checkpoint in checkpoints]
assert steps == sorted(steps, reverse=True) and len(steps) == 4, steps
assert checkpoints[0].fine_tuning_job_id == trained.id and checkpoints[0].metrics.train_loss is not None, checkpoints[0]

name = checkpoints[0].fine_tuned_model_checkpoint
permissions = client.fine_tuning.checkpoints.permissions
granted = [each.project_id for each in permissions.create(name, project_ids=["web", "shop"])]
assert granted == ["web", "shop"], granted
listed = list(permissions.list(name, limit=1))
assert sorted(each.project_id for each in listed) == ["shop", "web"], listed
for each in listed:
    assert permissions.delete(each.id, fine_tuned_model_checkpoint=name).deleted
assert list(permissions.list(name)) == []
assert list(client.models.list()) == []
refused(openai.NotFoundError, lambda: client.models.retrieve(name))
print("the client is content")
