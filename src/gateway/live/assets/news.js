// Talks to the gateway: questions with an answer, and streams of news. The key travels in a header, never in an address.

const API = "../live/v1";
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 30000;
/** The gateway says something at least every fifteen seconds. */
const LONGEST_SILENCE = 45000;

/** Why the gateway says no. */
export class Refused extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `the gateway answers with status ${status}`);
    this.status = status;
    this.field = body?.error?.field;
  }
}

function request(session, path, options = {}) {
  const headers = { ...options.headers, Authorization: `Bearer ${session.key}` };
  if (session.project) headers["X-Project"] = session.project;
  return fetch(API + path, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
}

async function refusal(answer) {
  return new Refused(answer.status, await answer.json().catch(() => null));
}

/** Asks, and returns what the answer says. */
export async function ask(session, path, body) {
  const said = body && { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const answer = await request(session, path, said);
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

/** The events of a text that comes in pieces. */
async function* events(reader, heard) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    text += decoder.decode(value, { stream: true });
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (field("event")) yield { name: field("event"), said: JSON.parse(field("data")) };
    }
  }
}

/**
 * Follows a stream until it is closed, and connects again when it breaks: each connection begins with snapshots, so nothing is missed.
 * `on` hears `snapshot`, `change`, `gone`, `denied` and `behind`; `state(word, why)` how the connection is; `over(reason)` why nothing more comes.
 */
export function follow(session, path, on) {
  const closed = new AbortController();
  let pause = FIRST_PAUSE;

  async function once() {
    const attempt = new AbortController();
    const give_up = () => attempt.abort();
    closed.signal.addEventListener("abort", give_up);
    let silence = setTimeout(give_up, LONGEST_SILENCE);
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(give_up, LONGEST_SILENCE);
    };
    try {
      const answer = await request(session, path, { signal: attempt.signal });
      if (!answer.ok) throw await refusal(answer);
      for await (const { name, said } of events(answer.body.getReader(), heard)) {
        if (name === "end") return said.reason;
        pause = FIRST_PAUSE;
        on.state(name === "behind" ? "behind" : "live", said.message);
        on[name]?.(said);
      }
      return "renew";
    } finally {
      clearTimeout(silence);
      closed.signal.removeEventListener("abort", give_up);
    }
  }

  async function forever() {
    on.state("connecting");
    while (!closed.signal.aborted) {
      let reason;
      try {
        reason = await once();
      } catch (error) {
        if (closed.signal.aborted) return;
        if (error instanceof Refused && [400, 401, 403, 404].includes(error.status)) return on.over(error);
        reason = error instanceof Refused ? error.message : "the gateway does not answer";
      }
      if (closed.signal.aborted) return;
      if (["gone", "unauthorized", "forbidden"].includes(reason)) return on.over(ended(reason));
      on.state("waiting", ["renew", "stopping"].includes(reason) ? "" : reason);
      await rest(pause * (0.5 + Math.random()), closed.signal);
      pause = Math.min(2 * pause, LONGEST_PAUSE);
    }
  }

  forever();
  return { close: () => closed.abort() };
}

function ended(reason) {
  const [status, message] = {
    gone: [404, "the run has been deleted"],
    unauthorized: [401, "the key is not valid any more"],
    forbidden: [403, "the key may not see this any more"],
  }[reason];
  return new Refused(status, { error: { message } });
}

/** Waits, but no longer than until somebody looks again or the network is back. */
function rest(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds);
    const looked = () => document.visibilityState === "visible" && done();
    function done() {
      clearTimeout(timer);
      removeEventListener("online", done);
      document.removeEventListener("visibilitychange", looked);
      signal.removeEventListener("abort", done);
      resolve();
    }
    addEventListener("online", done);
    document.addEventListener("visibilitychange", looked);
    signal.addEventListener("abort", done);
  });
}

/** The items of each section, kept up to date by news; `changed(section)` is called after each. */
export function kept(changed) {
  const sections = {};
  const name = (item) => item.name ?? item.metadata?.name;
  const of = (section) => (sections[section] ??= new Map());
  return {
    items: (section) => [...(sections[section]?.values() ?? [])],
    isKnown: (section) => section in sections,
    hear: {
      snapshot({ section, items }) {
        sections[section] = new Map(items.map((item) => [name(item), item]));
        changed(section);
      },
      change({ section, item }) {
        of(section).set(name(item), item);
        changed(section);
      },
      gone({ section, name: gone }) {
        if (of(section).delete(gone)) changed(section);
      },
    },
  };
}
