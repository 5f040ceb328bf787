// Small words for building the page, and for showing numbers and times to people.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An element with attributes and children; what begins with `on` listens. */
export const h = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);

/** The same of a drawing. */
export const svg = (tag, attributes = {}, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

/** Writes text where it differs, so that nothing is selected or announced anew without need. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Keeps one part for each item, in the order of the items: parts stay, so focus and what is open stay too. */
export function keyed(parent, make) {
  const parts = new Map();
  return (items) => {
    const wanted = new Set(items.map(([key]) => key));
    for (const [key, part] of parts) {
      if (!wanted.has(key)) {
        part.node.remove();
        parts.delete(key);
      }
    }
    let at = parent.firstElementChild;
    for (const [key, item] of items) {
      if (!parts.has(key)) parts.set(key, make(item));
      const part = parts.get(key);
      part.update(item);
      if (part.node === at) at = at.nextElementSibling;
      else parent.insertBefore(part.node, at);
    }
  };
}

/** A phase as a coloured word. */
export function badge() {
  const node = h("span", { class: "badge" });
  return {
    node,
    update(phase, text = phase) {
      node.dataset.phase = phase ?? "";
      say(node, text ?? "");
    },
  };
}

/** A message with a title and what helps. */
export function notice(kind, title, ...text) {
  return h("section", { class: `notice ${kind}`, role: kind === "bad" ? "alert" : null }, h("h2", {}, title), ...text);
}

/** A text to copy, and the button that does. */
export function copied(text, label) {
  const button = h("button", { type: "button", class: "quiet small", "aria-label": `Copy ${label}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      say(button, "Copied");
    } catch {
      say(button, "Select it to copy");
    }
    setTimeout(() => say(button, "Copy"), 1500);
  });
  return h("span", { class: "copied" }, h("code", { title: text }, text), button);
}

const isNumber = (value) => value !== null && value !== undefined && value !== "" && Number.isFinite(Number(value));

/** A metric, with as many digits as tell something. */
export function metric(value) {
  if (!isNumber(value)) return "–";
  const number = Number(value);
  const size = Math.abs(number);
  if (size !== 0 && (size < 0.001 || size >= 100000)) return number.toExponential(2);
  return number.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4);
}

/** A whole number with its thousands apart. */
export const count = (value) => (isNumber(value) ? Number(value).toLocaleString("en") : "–");

/** A number of bytes. */
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let [number, unit] = [Number(value ?? 0), 0];
  while (number >= 1024 && unit < units.length - 1) [number, unit] = [number / 1024, unit + 1];
  return `${unit === 0 || number >= 100 ? Math.round(number) : number.toFixed(1)} ${units[unit]}`;
}

/** A number of seconds in its two largest units. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min${whole < 600 && whole % 60 ? ` ${whole % 60} s` : ""}`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** Seconds from one time to another, or to now. */
export const between = (from, to) => ((to ? Date.parse(to) : Date.now()) - Date.parse(from)) / 1000;

/** How long ago something was. */
export function ago(time) {
  if (!time) return "–";
  const seconds = between(time);
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([size]) => seconds >= size) ?? [1, "s"];
  return seconds < 5 ? "just now" : `${Math.floor(seconds / size)} ${unit} ago`;
}

/** A time as people write it where they are, with its day unless that is today. */
export function clock(time) {
  if (!time) return "";
  const [then, now] = [new Date(time), new Date()];
  const day = then.toDateString() === now.toDateString() ? {} : { dateStyle: "medium" };
  return then.toLocaleString([], { ...day, timeStyle: "short" });
}

/** How long a run still takes. */
export function left(run) {
  if (!run.estimatedFinish || run.phase !== "Running") return "–";
  const seconds = -between(run.estimatedFinish);
  return seconds < 5 ? "any moment" : seconds < 60 ? "less than a minute" : duration(seconds);
}
