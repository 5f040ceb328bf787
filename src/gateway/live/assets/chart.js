// Curves over the steps of a run: logarithmic or not, smoothed or not, read out by pointer or by key.

import { count, h, metric, say, svg } from "./dom.js";

const EDGE = { top: 14, right: 18, bottom: 30, left: 58 };
const HEIGHT = 300;
const BLANK_HEIGHT = 110;
/** Share of all points on either side that a smooth curve is the mean of, and how many make it worth while. */
const SMOOTHING = 0.03;
const WORTH_SMOOTHING = 40;
const TICKS = 5;

/** Each value as the mean of those around it; near the beginning, where it falls fast, of as many before as after. */
export function smoothed(points) {
  const reach = Math.ceil(points.length * SMOOTHING);
  return points.map(([step, value], at) => {
    if (!Number.isFinite(value)) return [step, value];
    const before = Math.min(reach, at);
    const around = points.slice(at - before, at + before + 1).map(([, other]) => other).filter(Number.isFinite);
    return [step, around.reduce((sum, other) => sum + other, 0) / around.length];
  });
}

/** Round numbers from one to another. */
export function ticks(from, to, most) {
  const rough = (to - from) / most || 1;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * size).find((step) => step >= rough);
  const all = [];
  for (let tick = Math.ceil(from / step - 1e-9) * step; tick <= to + step * 1e-9; tick += step) all.push(Math.abs(tick) < step * 1e-9 ? 0 : tick);
  return all;
}

/** Round numbers for a logarithmic axis: powers of ten, and what lies between where these are few. */
export function logTicks(from, to) {
  const [low, high] = [Math.floor(Math.log10(from)), Math.ceil(Math.log10(to))];
  const all = [];
  for (let power = low; power <= high; power += 1) {
    for (const factor of high - low > 4 ? [1] : high - low > 2 ? [1, 3] : [1, 2, 5]) all.push(factor * 10 ** power);
  }
  return all.filter((tick) => tick >= from * 0.999 && tick <= to * 1.001);
}

function scale(log, [from, to], [start, end]) {
  const of = log ? Math.log10 : (value) => value;
  const span = of(to) - of(from) || 1;
  return (value) => start + ((of(value) - of(from)) / span) * (end - start);
}

/** The line through points; what is no number leaves a gap. */
function path(points, x, y) {
  let pen = "M";
  return points.map(([step, value]) => {
    if (!Number.isFinite(value)) return (pen = "M"), "";
    const drawn = `${pen}${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
    return drawn;
  }).join("");
}

/** An empty drawing, and what fills it: `draw({curves: [{name, label, points}], saves: [{step, best}]})`. */
export function chart() {
  const log = h("input", { type: "checkbox", role: "switch", id: "log-scale" });
  const smooth = h("input", { type: "checkbox", role: "switch", id: "smoothing" });
  const legend = h("div", { class: "legend" });
  const readout = h("output", { class: "readout", "aria-live": "polite" });
  const drawing = svg("svg", { class: "drawing", role: "img", tabindex: 0, height: HEIGHT, "aria-label": "Curves" });
  const node = h("div", { class: "chart" },
    h("div", { class: "switches" }, legend, h("span", { class: "grow" }),
      h("label", { class: "switch", for: "smoothing" }, smooth, "Smooth"), h("label", { class: "switch", for: "log-scale" }, log, "Log scale")),
    drawing, readout);
  let [shown, steps, at, axes] = [{ curves: [], saves: [] }, [], null, null];

  function drawn() {
    const width = Math.max(320, drawing.clientWidth || 800);
    resize(width, HEIGHT);
    const usable = (value) => Number.isFinite(value) && (!log.checked || value > 0);
    const curves = shown.curves.map((curve) => {
      const points = curve.points.map(([step, value]) => [step, usable(value) ? value : NaN]);
      return { ...curve, raw: points, points: smooth.checked && points.length > WORTH_SMOOTHING ? smoothed(points) : points };
    });
    const values = curves.flatMap((curve) => curve.raw.map(([, value]) => value)).filter(Number.isFinite);
    steps = [...new Set(curves.flatMap((curve) => curve.points.map(([step]) => step)))].sort((one, other) => one - other);
    if (values.length === 0) return blank(width);
    axes = axesOf(values, width);
    drawing.dataset.scale = log.checked ? "log" : "linear";
    drawing.replaceChildren(...grid(axes, width), ...marks(), ...curves.flatMap(lines), cursor());
    drawing.setAttribute("aria-label", described(curves));
    read(curves);
  }

  function resize(width, height) {
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("height", height);
  }

  function axesOf(values, width) {
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (log.checked) [low, high] = [low / 1.15, high * 1.15];
    else [low, high] = [low - (high - low || 1) * 0.06, high + (high - low || 1) * 0.06];
    if (!log.checked && Math.min(...values) >= 0) low = Math.max(low, 0);
    const [first, last] = [Math.min(0, steps[0]), Math.max(steps.at(-1), 1)];
    return {
      low, high, first, last,
      x: scale(false, [first, last], [EDGE.left, width - EDGE.right]),
      y: scale(log.checked, [low, high], [HEIGHT - EDGE.bottom, EDGE.top]),
    };
  }

  function grid({ low, high, first, last, x, y }, width) {
    const across = (log.checked ? logTicks(low, high) : ticks(low, high, TICKS)).map((tick) => svg("g", { class: "tick" },
      svg("line", { x1: EDGE.left, x2: width - EDGE.right, y1: y(tick), y2: y(tick) }),
      svg("text", { x: EDGE.left - 8, y: y(tick) + 4, "text-anchor": "end" }, axisText(tick))));
    const along = ticks(first, last, Math.max(3, width / 130)).map((tick) => svg("text", {
      class: "tick", x: x(tick), y: HEIGHT - 8, "text-anchor": "middle",
    }, count(tick)));
    return [...across, ...along];
  }

  const axisText = (tick) => (tick !== 0 && Math.abs(tick) < 0.001 ? tick.toExponential(0) : String(Number(tick.toPrecision(3))));

  function marks() {
    return shown.saves.filter(({ step }) => step >= axes.first && step <= axes.last).map(({ step, best }) => svg("g", {
      class: best ? "save best" : "save", "data-step": step,
    }, svg("line", { x1: axes.x(step), x2: axes.x(step), y1: EDGE.top, y2: HEIGHT - EDGE.bottom }),
    svg("circle", { cx: axes.x(step), cy: HEIGHT - EDGE.bottom, r: best ? 5 : 3.5 })));
  }

  function lines({ name, raw, points }, index) {
    const class_ = `curve of-${index}`;
    const faint = raw === points ? [] : [svg("path", { class: `${class_} faint`, d: path(raw, axes.x, axes.y) })];
    const dots = raw.length <= WORTH_SMOOTHING ? raw.filter(([, value]) => Number.isFinite(value)).map(([step, value]) => svg("circle", {
      class: `dot of-${index}`, cx: axes.x(step), cy: axes.y(value), r: 2.5,
    })) : [];
    return [...faint, svg("path", { class: class_, "data-curve": name, d: path(points, axes.x, axes.y) }), ...dots];
  }

  function cursor() {
    if (at === null || !steps.includes(at)) return svg("g");
    return svg("line", { class: "cursor", x1: axes.x(at), x2: axes.x(at), y1: EDGE.top, y2: HEIGHT - EDGE.bottom });
  }

  /** Says what is under the cursor, or the last there is. */
  function read(curves) {
    const step = at !== null && steps.includes(at) ? at : steps.at(-1);
    const nearest = ({ raw }) => raw.filter(([known, value]) => known <= step && Number.isFinite(value)).at(-1);
    const said = curves.map((curve) => [curve.label, nearest(curve)]).filter(([, point]) => point);
    const save = shown.saves.find((save) => save.step === step);
    const texts = said.map(([label, [known, value]]) => `${label} ${metric(value)}${known === step ? "" : ` (step ${count(known)})`}`);
    say(readout, [`Step ${count(step)}`, ...texts, save && (save.best ? "best checkpoint" : "checkpoint")].filter(Boolean).join("  ·  "));
  }

  function described(curves) {
    const ends = curves.filter((curve) => curve.raw.length).map(({ label, raw }) => `${label} from ${metric(raw[0][1])} to ${metric(raw.at(-1)[1])}`);
    return `Curves over ${count(steps.at(-1))} steps: ${ends.join(", ")}. Left and right arrows read them out.`;
  }

  function blank(width) {
    axes = null;
    resize(width, BLANK_HEIGHT);
    say(readout, "");
    const text = shown.curves.length ? "Nothing that can be drawn on this scale" : "Curves appear with the first evaluation or checkpoint";
    drawing.replaceChildren(svg("text", { class: "blank", x: width / 2, y: BLANK_HEIGHT / 2, "text-anchor": "middle" }, text));
  }

  function move(step) {
    if (at === step) return;
    at = step;
    drawn();
  }

  drawing.addEventListener("pointermove", (event) => {
    if (!axes) return;
    const box = drawing.getBoundingClientRect();
    const away = (step) => Math.abs(axes.x(step) - (event.clientX - box.left));
    move(steps.reduce((best, step) => (away(step) < away(best) ? step : best)));
  });
  drawing.addEventListener("pointerleave", () => move(null));
  drawing.addEventListener("blur", () => move(null));
  drawing.addEventListener("keydown", (event) => {
    const now = at === null ? steps.length : steps.indexOf(at);
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: steps.length - 1 }[event.key];
    if (event.key === "Escape") move(null);
    if (next === undefined || steps.length === 0) return;
    event.preventDefault();
    move(steps[Math.min(Math.max(next, 0), steps.length - 1)]);
  });
  for (const choice of [log, smooth]) choice.addEventListener("change", drawn);
  const resized = new ResizeObserver(drawn);
  resized.observe(drawing);

  return {
    node,
    draw(wanted) {
      shown = wanted;
      legend.replaceChildren(...wanted.curves.map(({ label }, index) => h("span", {}, h("i", { class: `of-${index}` }), label)),
        ...(wanted.saves.length ? [h("span", {}, h("i", { class: "of-save" }), "Checkpoint")] : []));
      drawn();
    },
    close: () => resized.disconnect(),
  };
}
