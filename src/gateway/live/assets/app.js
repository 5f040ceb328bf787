// Which view is shown: sign-in, the runs of a project, or one run.

import { h, notice, say } from "./dom.js";
import { list } from "./list.js";
import { run } from "./run.js";
import { forget, session, signIn } from "./sign-in.js";

const place = document.getElementById("main");
const connection = document.getElementById("connection");
const trouble = document.getElementById("trouble");
const project = document.getElementById("project");
const signOut = document.getElementById("sign-out");
let shown = null;

const WORDS = { live: "Live", connecting: "Connecting…", waiting: "Reconnecting…", behind: "Behind" };

function state(word, why) {
  if (word) connection.dataset.state = word;
  else delete connection.dataset.state;
  say(connection, word ? WORDS[word] : "");
  trouble.hidden = !why || word === "live";
  say(trouble, why ? `${why[0].toUpperCase()}${why.slice(1)}. What is shown may be behind; it goes on by itself.` : "");
}

function frame(who) {
  signOut.hidden = !who;
  project.hidden = !who?.project;
  say(project, who?.project ?? "");
}

function leave() {
  shown?.close();
  shown = null;
  state(null);
}

/** What is shown when a view can tell no more: each says what to do. */
function over(error, name) {
  leave();
  if (error.status === 401 || (error.status === 400 && error.field === "project")) {
    if (error.status === 401) forget();
    frame(null);
    return signIn(place, show, error);
  }
  const back = h("p", {}, h("a", { href: "#/" }, "Back to all runs"));
  if (error.status === 404 && name) {
    document.title = "Not there – Fine-tuning";
    return place.replaceChildren(notice("bad", `There is no run ${name} any more`, h("p", {}, "It may have been deleted, or lie in another project: ",
      "sign out to choose one."), back));
  }
  const help = error.status === 403
    ? [h("p", {}, "Somebody who may has to bind the role that reads in this namespace to your ServiceAccount:"),
      h("pre", { class: "command" }, "kubectl -n TEAM create rolebinding NAME-reads --serviceaccount TEAM:NAME --clusterrole finetune-operator-view")]
    : [];
  place.replaceChildren(notice("bad", "This cannot be shown", h("p", {}, error.message), ...help, back));
}

function show() {
  leave();
  const who = session();
  frame(who);
  if (!who) return signIn(place, show);
  const name = /^#\/runs\/([^/]+)$/.exec(location.hash)?.[1];
  document.title = name ? `${decodeURIComponent(name)} – Fine-tuning` : "Runs – Fine-tuning";
  const on = { state, over: (error) => over(error, name && decodeURIComponent(name)) };
  shown = name ? run(place, who, decodeURIComponent(name), on) : list(place, who, on);
}

signOut.addEventListener("click", () => {
  forget();
  location.hash = "#/";
  show();
});
addEventListener("hashchange", () => {
  if (location.hash === "#main") return;
  show();
  place.focus({ preventScroll: true });
  scrollTo(0, 0);
});
show();
