// The page for those who are not signed in: what a key is, where it comes from, and a field for it.

import { Problem, signIn } from "./api.js";
import { h, icon, put } from "./dom.js";

export function open(outlet, onDone, ended) {
  const input = h("input", { id: "token", name: "token", type: "password", autocomplete: "current-password", required: true,
    spellcheck: "false", autocapitalize: "off", placeholder: "SL…", "aria-describedby": "token-help token-problem" });
  const peek = h("button", { type: "button", class: "quiet small", "aria-pressed": "false", on: { click: () => show() } }, "Show");
  const problem = h("p", { class: "problem", id: "token-problem", role: "alert" });
  const button = h("button", { type: "submit", class: "primary block" }, icon("key"), "Sign in");
  const form = h("form", { class: "card signin", on: { submit } },
    h("label", { for: "token" }, "Your key"),
    h("div", { class: "joined" }, input, peek),
    h("p", { class: "hint", id: "token-help" }, "The whole token: access key, a dot, secret key."),
    problem, button);
  put(outlet, h("div", { class: "page narrow center" },
    h("div", { class: "lamp huge", "aria-hidden": "true" }),
    h("h1", { tabindex: "-1" }, "Safelight"),
    h("p", { class: "lead" }, ended ? "Your session has ended. Sign in again to go on." : "Photos in, previews and facts out. Sign in with a key to look inside."),
    form,
    h("div", { class: "card help" }, h("h2", {}, "Where do I find a key?"),
      h("dl", {},
        h("dt", {}, "On your own machine"), h("dd", {}, h("code", {}, "make up"), " prints it as ", h("em", {}, "Token"), "; it also lies in ", h("code", {}, ".safelight/connection.json"), "."),
        h("dt", {}, "On a server"), h("dd", {}, "Ask whoever runs it, or make one: ", h("code", {}, "safelight keys create --name you --scopes read,write"), ". Add ", h("code", {}, "admin"), " to delete photos and act on the queue.")))));
  input.focus();

  function show() {
    const visible = input.type === "password";
    input.type = visible ? "text" : "password";
    peek.textContent = visible ? "Hide" : "Show";
    peek.setAttribute("aria-pressed", String(visible));
  }

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    problem.textContent = "";
    try {
      await signIn(input.value);
      onDone();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      problem.textContent = wording(error);
      input.setAttribute("aria-invalid", "true");
      input.focus();
      input.select();
    } finally {
      button.disabled = false;
    }
  }
}

function wording(problem) {
  if (problem.status === 401 || problem.status === 422) return "This key opens nothing here: it is mistyped, revoked or expired. Copy the whole token.";
  return problem.sentence;
}
