// Makes elements. Text is always text: nothing here turns a string into markup.

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "indeterminate", "open", "htmlFor", "tabIndex"]);

/** An element. `props`: attributes; `on` holds listeners, `style` custom properties; null and false leave out. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function s(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

export function fill(element, props, children = []) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [type, run] of Object.entries(value)) element.addEventListener(type, run);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (PROPERTIES.has(name) && !(element instanceof SVGElement)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Replace all children. */
export function put(element, ...children) {
  element.replaceChildren(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const PATHS = {
  photos: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.5h.01",
  queue: "M4 6h16M4 12h10M4 18h6M18 14v6M15 17h6",
  dead: "M12 3l9.5 17h-19zM12 10v4M12 17h.01",
  upload: "M12 16V4M7 9l5-5 5 5M4 16v4h16v-4",
  download: "M12 4v12M7 11l5 5 5-5M4 16v4h16v-4",
  close: "M6 6l12 12M18 6L6 18",
  check: "M5 12.5l4.5 4.5L19 7.5",
  copy: "M9 9h11v11H9zM15 9V4H4v11h5",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5",
  replay: "M4 12a8 8 0 1 0 2.5-5.8M4 4v4.5h4.5",
  pause: "M8 5v14M16 5v14",
  play: "M7 5l12 7-12 7z",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  down: "M6 9.5l6 6 6-6",
  key: "M14.5 9.5a4.5 4.5 0 1 1-2-3.7 4.5 4.5 0 0 1 2 3.7zM14.5 9.5H21v4M18 9.5V12",
  out: "M10 4H4v16h6M14 8l4 4-4 4M18 12H9",
  book: "M5 4h9a5 5 0 0 1 5 5v11H8a3 3 0 0 1-3-3zM5 17a3 3 0 0 1 3-3h11",
  filter: "M4 5h16l-6 8v5l-4 2v-7z",
  search: "M10.5 4a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13zM15.5 15.5L20 20",
  alert: "M12 4a8 8 0 1 1 0 16 8 8 0 0 1 0-16zM12 8v5M12 16h.01",
  ban: "M12 4a8 8 0 1 1 0 16 8 8 0 0 1 0-16zM6.5 6.5l11 11",
};

/** A drawing that says nothing by itself: whoever uses it says in words what it means. */
export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: PATHS[name] }));
}

let saying = 0;

/** Say it to those who do not see the page. The last one of a moment counts. */
export function say(text) {
  clearTimeout(saying);
  saying = setTimeout(() => { document.getElementById("said").textContent = text; }, 150);
}

/** A note in the corner that goes away. `tone`: good, bad or plain. */
export function toast(text, tone = "plain") {
  const note = h("div", { class: `toast ${tone}` }, icon(tone === "bad" ? "alert" : "check"), h("span", {}, text));
  document.getElementById("toasts").append(note);
  setTimeout(() => note.remove(), tone === "bad" ? 9000 : 4500);
}

/** A button that copies `text`. */
export function copier(text, what) {
  const button = h("button", {
    type: "button", class: "quiet small", "aria-label": `Copy ${what}`, title: `Copy ${what}`,
    on: { click: () => copy(text, button) },
  }, icon("copy"));
  return button;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // not allowed without TLS but on this machine: the old way
    const field = h("textarea", { class: "unseen", value: text, "aria-hidden": "true" });
    button.after(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    button.focus();
  }
  put(button, icon("check"));
  say("Copied.");
  setTimeout(() => put(button, icon("copy")), 1500);
}

/** Run `change` once it was quiet for so long; where it never is, every `longest`. */
export function settle(change, milliseconds, longest = 1000) {
  let timer = 0;
  let latest = 0;
  return (...given) => {
    const now = performance.now();
    if (timer) clearTimeout(timer);
    else latest = now + Math.max(longest, milliseconds);
    timer = setTimeout(() => { timer = 0; change(...given); }, Math.max(0, Math.min(milliseconds, latest - now)));
  };
}

/** Let `change` replace what `root` holds. A focus that is lost by it goes to the same part or control, else to the
 * heading. */
export function refocus(root, change) {
  const before = document.activeElement;
  if (!root.contains(before)) return change();
  const label = (item) => item.getAttribute("aria-label") || item.textContent;
  const part = before.closest("details[data-part]");
  const name = label(before);
  change();
  if (before.isConnected) return;
  const same = part ? [root.querySelector(`[data-part="${CSS.escape(part.dataset.part)}"] > summary`)]
    : [...root.querySelectorAll(before.localName)].filter((item) => label(item) === name);
  const found = same[0] || root.querySelector("h1");
  if (found) found.focus({ preventScroll: true });
}

/** A message in a box. `tone`: plain, warm or bad. */
export function notice(tone, title, ...more) {
  return h("div", { class: `notice ${tone}` }, icon(tone === "plain" ? "alert" : "dead"),
    h("div", {}, title && h("p", { class: "notice-title" }, title), more));
}

/** Something that is loading. */
export function loading(what) {
  return h("p", { class: "loading" }, h("span", { class: "lamp", "aria-hidden": "true" }), `Loading ${what} …`);
}
