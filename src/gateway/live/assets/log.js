// The end of the log of a run. It is asked for when there is news of the run, never by the clock.

import { h, say } from "./dom.js";
import { ask } from "./news.js";

const LINES = 200;
/** Pixels from its end within which a log is followed. */
const NEAR = 40;

/** A card with the log; `heard` asks for it again. */
export function log(session, name) {
  const text = h("pre", { class: "log", tabindex: 0, role: "log", "aria-label": "End of the log" });
  const [state, again] = [h("span", { class: "soft" }), h("button", { type: "button", class: "quiet small" }, "Read again")];
  const node = h("section", { class: "card" }, h("div", { class: "heading" }, h("h2", {}, "Log"), state, h("span", { class: "grow" }), again), text);
  let [asking, wanted, closed] = [false, false, false];

  async function read() {
    if (asking) return void (wanted = true);
    asking = true;
    try {
      const { lines } = await ask(session, `/runs/${encodeURIComponent(name)}/logs?lines=${LINES}`);
      if (!closed) show(lines);
    } catch (error) {
      say(state, error.message);
    }
    asking = false;
    if (wanted && !closed) {
      wanted = false;
      read();
    }
  }

  function show(lines) {
    const followed = text.scrollHeight - text.scrollTop - text.clientHeight < NEAR;
    say(state, lines.length ? `the last ${lines.length} lines` : "");
    const clock = (time) => (time ? new Date(time).toLocaleTimeString([], { hour12: false }) : "");
    text.replaceChildren(...lines.map((line) => h("span", { class: `line ${line.level}` }, h("time", {}, clock(line.time)), ` ${line.text}\n`)));
    if (lines.length === 0) text.append("Nothing has been said yet. Lines appear when the trainer runs.");
    if (followed) text.scrollTop = text.scrollHeight;
  }

  again.addEventListener("click", read);
  return {
    node,
    heard: read,
    close: () => (closed = true),
  };
}
