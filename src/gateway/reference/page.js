// Shows the API document. Everything is made as text nodes: nothing of the document is read as HTML.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
let api;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null));
  return made;
}

// Text in which `words` are code and blank lines part paragraphs.
function prose(text) {
  return (text || "").split(/\n\s*\n/).filter(Boolean).map((paragraph) =>
    element("p", {}, paragraph.split("`").map((part, at) => (at % 2 ? element("code", {}, part) : part))));
}

function resolve(place) {
  let found = place || {};
  while (found.$ref) {
    const path = found.$ref.replace(/^#\//, "").split("/").map((part) => part.replace(/~1/g, "/").replace(/~0/g, "~"));
    found = path.reduce((inner, part) => inner[part], api);
  }
  return found;
}

const isNull = (schema) => resolve(schema).type === "null";

// A schema without its null, and whether null is allowed.
function unwrapped(schema) {
  const found = resolve(schema);
  const choices = found.oneOf || found.anyOf;
  if (choices && choices.some(isNull)) {
    const rest = choices.filter((choice) => !isNull(choice));
    if (rest.length === 1) return [resolve(rest[0]), true];
  }
  if (Array.isArray(found.type)) {
    const types = found.type.filter((type) => type !== "null");
    return [{ ...found, type: types.join(" or ") }, types.length < found.type.length];
  }
  return [found, false];
}

// All parts of a schema as one object.
function flat(schema) {
  const [found] = unwrapped(schema);
  if (!found.allOf) return found;
  return found.allOf.map(flat).reduce((whole, part) => ({
    ...whole, ...part,
    properties: { ...whole.properties, ...part.properties },
    required: [...(whole.required || []), ...(part.required || [])],
  }), { description: found.description });
}

function typeOf(schema) {
  const [found, nullable] = unwrapped(schema);
  const suffix = nullable ? " or null" : "";
  if (found.type === "array") return `list of ${typeOf(found.items || {})}${suffix}`;
  if (found.enum) return `${found.enum.map((word) => JSON.stringify(word)).join(" | ")}${suffix}`;
  const whole = flat(found);
  if (whole.properties || found.oneOf || whole.additionalProperties) return `object${suffix}`;
  return `${found.format ? `${found.type} (${found.format})` : found.type || "any value"}${suffix}`;
}

function bounds(schema) {
  const [found] = unwrapped(schema);
  const said = [];
  const say = (key, words) => found[key] !== undefined && said.push(`${words} ${found[key]}`);
  say("minimum", "at least");
  say("maximum", "at most");
  say("minLength", "characters: at least");
  say("maxLength", "characters: at most");
  say("minItems", "items: at least");
  say("maxItems", "items: at most");
  if (found.default !== undefined) said.push(`default ${JSON.stringify(found.default)}`);
  return said.join(", ");
}

// The fields below a schema, and of those below it when asked for.
function fields(schema, depth = 0) {
  const [found] = unwrapped(schema);
  if (found.type === "array") return fields(found.items || {}, depth);
  if (found.oneOf) return element("div", { class: "fields" }, found.oneOf.map((choice) => element("div", {}, "one of: ", fields(choice, depth))));
  const whole = flat(found);
  if (!whole.properties) return undefined;
  const required = new Set(whole.required || []);
  const rows = Object.entries(whole.properties).map(([name, property]) => {
    const inner = depth < 6 ? fields(property, depth + 1) : undefined;
    const limits = bounds(property);
    return element("div", {},
      element("code", {}, name), " ",
      element("span", { class: "type" }, typeOf(property), limits ? `, ${limits}` : ""),
      required.has(name) ? undefined : element("span", { class: "type" }, ", optional"),
      prose(property.description || ((property.oneOf || [])[0] || {}).description),
      inner && element("details", {}, element("summary", {}, "fields"), inner));
  });
  if (whole.additionalProperties) rows.push(element("div", {}, element("span", { class: "type" }, "and others"), prose(whole.additionalProperties.description)));
  return element("div", { class: "fields" }, rows);
}

// What a body can look like.
function example(schema, depth = 0) {
  const [found] = unwrapped(schema);
  if (found.default !== undefined) return found.default;
  if (found.enum) return found.enum[0];
  if (found.type === "array") return depth > 5 ? [] : [example(found.items || {}, depth + 1)];
  if (found.oneOf) return example(found.oneOf[0], depth + 1);
  const whole = flat(found);
  if (whole.properties && depth <= 5) {
    return Object.fromEntries(Object.entries(whole.properties).map(([name, property]) => [name, example(property, depth + 1)]));
  }
  if (found.format === "date-time") return "2027-01-15T07:00:00Z";
  return { string: "…", integer: 1, number: 0.1, boolean: true, object: {} }[found.type] ?? null;
}

function bodies(content, whatFor) {
  return Object.entries(content || {}).map(([type, { schema }]) => {
    const below = fields(schema || {});
    return element("div", {},
      element("span", { class: "type" }, type, below ? "" : `, ${typeOf(schema || {})}`),
      below,
      below && element("details", {}, element("summary", {}, `example of ${whatFor}`), element("pre", {}, JSON.stringify(example(schema), null, 2))));
  });
}

function parametersOf(operation) {
  const all = (operation.parameters || []).map(resolve);
  if (!all.length) return undefined;
  const rows = all.map((parameter) => element("tr", {},
    element("td", {}, element("code", {}, parameter.name), parameter.required ? element("span", { class: "required" }, " required") : ""),
    element("td", {}, element("span", { class: "type" }, parameter.in)),
    element("td", {},
      element("span", { class: "type" }, [typeOf(parameter.schema), bounds(parameter.schema)].filter(Boolean).join(", ")),
      prose(parameter.description))));
  const head = element("tr", {}, ["parameter", "in", "what"].map((word) => element("th", {}, word)));
  return [element("h4", {}, "Parameters"), element("table", {}, head, rows)];
}

function answersOf(operation) {
  const good = [], refusals = [];
  for (const [code, said] of Object.entries(operation.responses)) {
    const response = resolve(said);
    if (/^[45]/.test(code)) refusals.push([code, response]);
    else {
      good.push(element("h4", {}, `Answer ${code}`), prose(response.description), ...bodies(response.content, "an answer"));
    }
  }
  if (!refusals.length) return good;
  const rows = refusals.map(([code, response]) => element("tr", {}, element("td", {}, element("code", {}, code)), element("td", {}, response.description)));
  const shape = bodies(refusals[0][1].content, "a refusal");
  return [...good, element("details", {}, element("summary", {}, "Refusals"), element("table", {}, rows), ...shape)];
}

function shownOperation(path, method, operation) {
  const scope = ((operation.security || [])[0] || {}).bearer;
  const body = operation.requestBody && resolve(operation.requestBody);
  return element("article", { class: "operation", id: operation.operationId },
    element("header", {},
      element("h3", {}, operation.summary),
      element("span", { class: `method ${method}` }, method.toUpperCase()),
      element("code", {}, path),
      element("span", { class: "scope" }, scope ? scope.join(", ") : "no key")),
    element("div", {},
      prose(operation.description),
      parametersOf(operation),
      body && [element("h4", {}, body.required ? "Body" : "Body, optional"), ...bodies(body.content, "a body")],
      answersOf(operation)));
}

function show() {
  const main = document.getElementById("document");
  const contents = document.getElementById("contents");
  document.title = `${api.info.title} ${api.info.version}: API reference`;
  main.replaceChildren(
    element("h2", {}, `${api.info.title} ${api.info.version}`),
    ...prose(api.info.description),
    element("p", {}, "The document behind this page: ", element("a", { href: "/openapi.json" }, "/openapi.json")),
    element("h4", {}, "Keys"),
    element("table", {}, Object.values(api.components.securitySchemes).map((scheme) => element("tr", {},
      element("td", {}, element("code", {}, scheme.scheme ? "Authorization: Bearer KEY" : `${scheme.name}: KEY`)),
      element("td", {}, scheme.description)))));
  for (const tag of api.tags) {
    const section = element("section", {}, element("h2", { id: `tag-${tag.name}` }, tag.name), ...prose(tag.description));
    const list = element("ul", {});
    for (const [path, item] of Object.entries(api.paths)) {
      for (const method of METHODS.filter((known) => item[known] && item[known].tags.includes(tag.name))) {
        const operation = item[method];
        section.append(shownOperation(path, method, operation));
        list.append(element("li", { "data-words": `${method} ${path} ${operation.summary}`.toLowerCase() },
          element("a", { href: `#${operation.operationId}` }, element("span", { class: `method ${method}` }, method.toUpperCase()), operation.summary)));
      }
    }
    main.append(section);
    contents.append(element("h2", {}, tag.name), list);
  }
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

document.getElementById("search").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const entry of document.querySelectorAll("nav li")) entry.hidden = !entry.dataset.words.includes(wanted);
});

fetch("/openapi.json")
  .then((answer) => {
    if (!answer.ok) throw new Error(`the gateway answers ${answer.status}`);
    return answer.json();
  })
  .then((found) => { api = found; show(); })
  .catch((error) => { document.getElementById("loading").textContent = `The document cannot be shown: ${error.message}`; });
