// Asks for a key. It stays in this tab and goes when the tab does.

import { h } from "./dom.js";

const KEPT = "finetune-session";

/** The key and the project of this tab, if somebody has signed in. */
export function session() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT));
  } catch {
    return null;
  }
}

/** Forgets the key. */
export const forget = () => sessionStorage.removeItem(KEPT);

/** The form; `enter` is called once there is a key. */
export function signIn(place, enter, error) {
  const key = h("input", {
    id: "key", type: "password", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "key-help",
  });
  const project = h("input", {
    id: "name-of-project", type: "text", pattern: "[a-z0-9]([a-z0-9\\-]*[a-z0-9])?", maxlength: 63, autocomplete: "off", autocapitalize: "none",
    spellcheck: "false", "aria-describedby": "project-help", title: "A namespace: lower-case letters, digits and dashes",
  });
  project.value = session()?.project ?? "";
  const form = h("form", { class: "card sign-in" },
    h("h1", {}, "Watch your runs"),
    h("p", { class: "soft" }, "Runs, checkpoints and served models of your project, as they happen."),
    error && h("p", { class: "problem", role: "alert" }, error.message),
    h("label", { for: "key" }, "Key"),
    key,
    h("p", { id: "key-help", class: "help" }, "The token of a ServiceAccount. Its rights are what you see and may do here."),
    h("pre", { class: "command" }, "kubectl -n TEAM create token NAME --duration 8h"),
    h("label", { for: "name-of-project" }, "Project ", h("span", { class: "soft" }, "– optional")),
    project,
    h("p", { id: "project-help", class: "help" }, "A namespace. Left empty, it is the one the key comes from."),
    h("button", { type: "submit", class: "main" }, "Show my runs"),
    h("p", { class: "help" }, "The key stays in this tab. It is sent to this gateway alone, and forgotten when you sign out or close the tab."),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const said = { key: key.value.trim(), project: project.value.trim() || null };
    if (!said.key) return;
    sessionStorage.setItem(KEPT, JSON.stringify(said));
    key.value = "";
    enter();
  });
  place.replaceChildren(form);
  (error?.field === "project" ? project : key).focus();
}
