// Questions that must be answered before something happens. The browser's own dialog keeps the focus.

import { h, icon } from "./dom.js";

/** Open a dialog. Returns {element, body, close}; `onClose` runs however it is closed. */
export function openDialog(heading, { wide = false, onClose = null } = {}) {
  const before = document.activeElement;
  const body = h("div", { class: "dialog" });
  const element = h("dialog", { class: wide ? "wide" : "", "aria-labelledby": "dialog-heading" }, body);
  const close = () => element.close();
  body.append(h("div", { class: "dialog-head" }, h("h2", { id: "dialog-heading" }, heading),
    h("button", { type: "button", class: "quiet small", "aria-label": "Close", on: { click: close } }, icon("close"))));
  element.addEventListener("close", () => {
    element.remove();
    const heading = document.querySelector("main h1");
    if (before && before.isConnected) before.focus();
    else if (heading) heading.focus({ preventScroll: true });
    if (onClose) onClose();
  });
  element.addEventListener("click", (event) => { if (event.target === element) close(); });
  document.body.append(element);
  element.showModal();
  return { element, body, close };
}

/** Ask. Resolves to whether the answer was yes. */
export function confirm(heading, content, yes, { danger = false } = {}) {
  return new Promise((resolve) => {
    let answer = false;
    const { body, close } = openDialog(heading, { onClose: () => resolve(answer) });
    const button = h("button", { type: "button", class: danger ? "danger full" : "primary", on: { click: () => { answer = true; close(); } } }, yes);
    body.append(h("div", {}, content), h("div", { class: "dialog-foot" }, h("button", { type: "button", on: { click: close } }, "Cancel"), button));
  });
}
