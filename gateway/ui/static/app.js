// Begins here: who is signed in, which page is wanted, and the frame around the pages.

import { events, findSession, get, Problem, session, signOut } from "./api.js";
import { h, icon, loading, notice, put, say, settle, toast } from "./dom.js";
import * as gallery from "./gallery.js";
import { currentStatus, live, start, stop } from "./live.js";
import { abandon, hide, isUploading, unhide } from "./uploads.js";

const main = document.getElementById("main");
const header = document.getElementById("header");

const PAGES = [
  { pattern: /^\/$/, tab: "/", load: async () => gallery },
  { pattern: /^\/photos\/([0-9a-fA-F-]{36})$/, tab: "/", load: () => import("./photo.js") },
  { pattern: /^\/queue$/, tab: "/queue", load: () => import("./queue.js") },
  { pattern: /^\/jobs$/, tab: "/queue", load: () => import("./jobs.js") },
  { pattern: /^\/dead$/, tab: "/dead", load: () => import("./dead.js") },
];
const TABS = [["/", "Photos", "photos"], ["/queue", "Queue", "queue"], ["/dead", "Dead letters", "dead"]];

let open = null;  // the page that is shown: {close}
let turn = 0;
const deadPill = h("span", { class: "pill bad", hidden: true });

history.scrollRestoration = "manual";
addEventListener("popstate", () => render({ focus: true }));
document.addEventListener("click", onClick);
events.addEventListener("signed-out", ({ detail }) => leave(detail));
gallery.takeDrops();
begin();

async function begin() {
  try {
    await findSession();
  } catch (error) {
    put(main, h("div", { class: "page narrow" }, notice("bad", "Safelight cannot be reached.", h("p", {}, error.message),
      h("button", { type: "button", on: { click: () => location.reload() } }, icon("replay"), "Try again"))));
    return;
  }
  if (session.current) enter();
  else showSignIn(false);
}

function enter() {
  unhide();
  frame();
  start(isUploading);
  countDead();
  render({ focus: false });
}

function leave(how) {
  stop();
  closePage();
  gallery.clear();
  hide();
  showSignIn(how !== "out");
}

// Uploads and whatever asks by itself first: what went on would be refused, and the session look as if it had ended.
function quit() {
  abandon();
  stop();
  closePage();
  return signOut();
}

async function showSignIn(ended) {
  header.hidden = true;
  document.title = "Sign in · Safelight";
  const page = await import("./signin.js");
  page.open(main, enter, ended);
}

// --- the frame

function frame() {
  const tab = ([path, name, drawing]) => h("a", { href: path, class: "tab" }, icon(drawing), h("span", {}, name), path === "/dead" && deadPill);
  const lamp = h("span", { class: "status", role: "img" });
  const showStatus = () => {
    const word = { live: "Live", polling: "Looking every few seconds", away: "Not connected" }[currentStatus()];
    lamp.dataset.status = currentStatus();
    lamp.setAttribute("aria-label", word);
    lamp.title = word;
  };
  live.addEventListener("status", showStatus);
  showStatus();
  const { name, scopes, places } = session.current;
  const where = places.length ? h("p", {}, `Limited to ${places.join(", ")}`) : null;
  const who = h("details", { class: "who" },
    h("summary", { "aria-label": `Signed in as ${name}` }, icon("key"), h("span", { class: "who-name" }, name)),
    h("div", { class: "who-menu" }, h("p", { class: "strong" }, name), h("p", {}, `May: ${scopes.join(", ")}`), where,
      h("a", { href: "/docs", class: "button" }, icon("book"), "API documentation"),
      h("button", { type: "button", on: { click: quit } }, icon("out"), "Sign out")));
  put(header, h("a", { href: "/", class: "brand", "aria-label": "Safelight, all photos" }, h("span", { class: "lamp", "aria-hidden": "true" }), h("span", { class: "brand-name" }, "Safelight")),
    h("nav", { "aria-label": "Pages", class: "tabs" }, TABS.map(tab)), h("div", { class: "header-end" }, lamp, who));
  header.hidden = false;
}

document.addEventListener("pointerdown", (event) => closeMenus(event.target));
document.addEventListener("keydown", (event) => { if (event.key === "Escape") closeMenus(null, true); });

function closeMenus(target, focus = false) {
  for (const menu of document.querySelectorAll("details.who[open]")) {
    if (target && menu.contains(target)) continue;
    menu.open = false;
    if (focus) menu.querySelector("summary").focus();
  }
}

/** How many dead letters there are, beside their tab. Keys that are limited to places may not know. */
export async function countDead() {
  if (!session.current || session.current.places.length) return;
  const stats = await get("/v1/stats").catch(() => null);
  if (stats) showDead(stats);
}

export function showDead(stats) {
  const dead = Object.values(stats.processors).reduce((sum, item) => sum + item.dead, 0);
  deadPill.hidden = dead === 0;
  deadPill.textContent = dead > 999 ? "999+" : dead;
}

const countSoon = settle(countDead, 300);
live.addEventListener("photo", ({ detail }) => { if (detail.type === "job.dead") countSoon(); });

// --- the pages

/** Go to an address of ours. */
export function navigate(path, { replace = false } = {}) {
  if (replace) history.replaceState(null, "", path);
  else history.pushState(null, "", path);
  return render({ focus: true });
}

function onClick(event) {
  const link = event.target.closest && event.target.closest("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const url = new URL(link.href);
  if (link.target || link.hasAttribute("download") || url.origin !== location.origin || url.hash) return;
  if (!session.current || !PAGES.some((page) => page.pattern.test(url.pathname))) return;
  event.preventDefault();
  if (url.href !== location.href) navigate(url.pathname + url.search);
  else scrollTo({ top: 0 });
}

function closePage() {
  if (open && open.close) open.close();
  open = null;
}

async function render({ focus }) {
  if (!session.current) return;
  const mine = ++turn;
  const url = new URL(location.href);
  const page = PAGES.find((item) => item.pattern.test(url.pathname));
  for (const tab of header.querySelectorAll(".tab")) {
    if (page && tab.getAttribute("href") === page.tab) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  closePage();
  try {
    const waiting = setTimeout(() => { if (mine === turn) put(main, h("div", { class: "page" }, loading("the page"))); }, 200);
    const module = await page.load();
    clearTimeout(waiting);
    if (mine !== turn) return;
    if (module !== gallery) scrollTo(0, 0);
    open = module.open(main, page.pattern.exec(url.pathname), url);
    document.title = `${open.title || module.title} · Safelight`;
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    // The files of this page are another version's by now.
    put(main, h("div", { class: "page narrow" }, notice("warm", "Safelight was updated meanwhile.", h("p", {}, "Load the page again to go on."),
      h("button", { type: "button", class: "primary", on: { click: () => location.reload() } }, icon("replay"), "Load again"))));
    return;
  }
  if (focus) {
    const heading = main.querySelector("h1");
    if (heading) heading.focus({ preventScroll: true });
    say(document.title);
  }
}

addEventListener("unhandledrejection", (event) => {
  if (event.reason && event.reason.name === "AbortError") return;
  toast(event.reason instanceof Problem ? event.reason.sentence : "Something failed that should not have. Load the page again.", "bad");
});
