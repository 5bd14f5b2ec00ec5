// The uploads of this page: a few at a time, each with its progress, tried again with the same Idempotency-Key, and
// shown in a dock that stays while other pages are looked at.

import { get, may, Problem, send, session } from "./api.js";
import { h, icon, put, say } from "./dom.js";
import { count, size, statusWord } from "./format.js";
import { live } from "./live.js";

export const uploads = new EventTarget();  // "stored": a photo was stored

const AT_ONCE = 3;
const MAX_TRIES = 9;
const MAX_PAUSE_MS = 15000;
const ENDED = new Set(["ready", "partial", "rejected", "failed", "cancelled"]);

const entries = [];
let owner = "";  // access key of whoever sends them
let folded = false;
let dock = null;

export function isUploading() {
  return entries.some((entry) => ["waiting", "sending", "pausing"].includes(entry.state));
}

/** Send these files. `place`: "bucket/prefix" to store them under their names; "" lets the gateway make keys. */
export function add(files, place = "") {
  const fresh = [...files].map((file) => makeEntry(file, place));
  if (!fresh.length) return;
  owner = session.current.access_key;
  const first = document.createDocumentFragment();
  for (const entry of fresh) {
    entries.push(entry);
    first.append(entry.row);
  }
  show().append(first);
  say(`${count(fresh.length, "upload")} started.`);
  pump();
  sum();
}

/** The files of a drop or a paste, those in dropped folders too. */
export async function filesOf(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const roots = items.map((item) => (item.webkitGetAsEntry ? item.webkitGetAsEntry() : null));
  if (!roots.some((root) => root && root.isDirectory)) return [...transfer.files];
  const found = [];
  for (const root of roots) if (root) await walk(root, found);
  return found;
}

async function walk(entry, found) {
  if (entry.name.startsWith(".")) return;
  if (entry.isFile) {
    found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const item of some) await walk(item, found);
  }
}

function makeEntry(file, place) {
  const entry = { file, place, key: crypto.randomUUID ? crypto.randomUUID() : randomKey(), state: "waiting", sent: 0, tries: 0 };
  const name = file.name || "pasted photo";
  entry.name = h("span", { class: "upload-name" }, name);
  entry.word = h("span", { class: "upload-word" }, "Waiting");
  entry.bar = h("progress", { max: 1, value: 0, "aria-label": `Upload of ${name}` });
  entry.button = h("button", { type: "button", class: "quiet small", on: { click: () => onButton(entry) } });
  entry.row = h("li", { class: "upload" },
    h("div", { class: "upload-line" }, entry.name, h("span", { class: "upload-size" }, size(file.size)), entry.button),
    entry.bar, entry.word);
  change(entry, "waiting");
  return entry;
}

function randomKey() {  // randomUUID is there on this machine and with TLS only
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Send what waits, as far as there is room. What can never be sent fails here, and takes no room. */
function pump() {
  let room = AT_ONCE - entries.filter((entry) => entry.state === "sending").length;
  for (const entry of entries.filter((item) => item.state === "waiting")) {
    const refused = refusal(entry.file);
    if (refused) {
      fail(entry, refused);
    } else if (room > 0) {
      room -= 1;
      run(entry);
    }
  }
}

function refusal(file) {
  const limit = session.current ? session.current.max_upload_bytes : Infinity;
  if (file.size > limit) return `It has ${size(file.size)}; at most ${size(limit)} are taken.`;
  return file.size === 0 ? "The file is empty." : "";
}

async function run(entry) {
  change(entry, "sending");
  try {
    entry.handle = start(entry);
    const answer = await entry.handle.answer;
    stored(entry, answer.photos ? answer.photos[0] : answer);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) throw error;
    const underWay = error.code === "idempotency_in_progress";
    if ((error.passing || underWay) && entry.tries < MAX_TRIES) retryLater(entry, error);
    else fail(entry, error.status === 0 ? "The connection broke too often." : explain(error));
  } finally {
    pump();
  }
}

function explain(problem) {
  const first = problem.body.errors && problem.body.errors[0];
  return first && first.detail ? `${first.title} ${first.detail}` : problem.sentence;
}

function start(entry) {
  const headers = { "Idempotency-Key": entry.key };
  const progress = (sent) => onProgress(entry, sent);
  if (!entry.place) {
    const form = new FormData();
    form.append("file", entry.file, entry.file.name || "photo");
    return send("POST", "/v1/photos", form, headers, progress);
  }
  return send("PUT", pathOf(entry), entry.file, headers, progress);
}

function pathOf(entry) {
  const [bucket, ...rest] = entry.place.split("/");
  const folder = rest.filter(Boolean).join("/");
  const key = folder ? `${folder}/${entry.file.name}` : entry.file.name;
  return `/v1/photos/${encodeURIComponent(bucket)}/${key.split("/").map(encodeURIComponent).join("/")}`;
}

function onProgress(entry, sent) {
  const total = entry.file.size;
  entry.bar.value = Math.min(1, sent / total);
  entry.word.textContent = sent < total ? `${Math.floor((100 * sent) / total)} %` : "Being stored";
}

function retryLater(entry, problem) {
  entry.tries += 1;
  const longest = Math.min(MAX_PAUSE_MS, 500 * 2 ** entry.tries);
  const pause = Math.max((problem.retryAfter || 0) * 1000, longest * (0.5 + Math.random() / 2));
  change(entry, "pausing");
  entry.word.textContent = navigator.onLine ? `Trying again: ${problem.title || problem.message}` : "Waiting for the network";
  const again = () => {
    removeEventListener("online", again);
    clearTimeout(entry.timer);
    if (entry.state !== "pausing") return;
    change(entry, "waiting");
    pump();
  };
  entry.timer = setTimeout(again, pause);
  addEventListener("online", again);
}

function stored(entry, photo) {
  entry.photo = photo;
  entry.bar.value = 1;
  put(entry.name, h("a", { href: `/photos/${photo.id}` }, entry.file.name || "pasted photo"));
  change(entry, photo.status);
  uploads.dispatchEvent(new CustomEvent("stored", { detail: photo }));
}

function fail(entry, text) {
  change(entry, "failed");
  entry.word.textContent = text;
  dock.list.prepend(entry.row);  // where it is seen
  say(`${entry.file.name} was not stored. ${text}`);
}

function onButton(entry) {
  if (entry.state === "failed" || entry.state === "cancelled") {
    entry.tries = 0;
    change(entry, "waiting");
    pump();
    return;
  }
  cancel(entry);
}

function cancel(entry) {
  const { state } = entry;
  change(entry, "cancelled");
  clearTimeout(entry.timer);
  if (state === "sending") entry.handle.abort();
}

const WORDS = {
  waiting: "Waiting", sending: "0 %", pausing: "Trying again", cancelled: "Cancelled", failed: "Failed",
  ready: "Ready", partial: "Stored; a preview or fact is missing", rejected: "Stored, but rejected",
};

function change(entry, state) {
  entry.state = state;
  entry.row.dataset.state = state;
  const reason = entry.photo && entry.photo.rejection && state === "rejected" ? `: ${entry.photo.rejection.detail || entry.photo.rejection.code}` : "";
  entry.word.textContent = (WORDS[state] || statusWord(state)) + reason;
  if (state === "waiting" || state === "sending") entry.bar.value = 0;
  entry.bar.hidden = state === "failed" || state === "cancelled";
  const again = state === "failed" || state === "cancelled";
  const label = again ? "Try again" : "Cancel";
  entry.button.hidden = Boolean(entry.photo);
  entry.button.setAttribute("aria-label", `${label}: ${entry.file.name}`);
  put(entry.button, icon(again ? "replay" : "close"));
  sum();
}

// --- what becomes of what was stored

live.addEventListener("photo", ({ detail }) => {
  const entry = entries.find((item) => item.photo && item.photo.id === detail.data.photo_id);
  if (entry && detail.data.status) follow(entry, { ...entry.photo, status: detail.data.status, rejection: detail.data.rejection });
});

live.addEventListener("tick", async () => {
  const open = entries.filter((entry) => entry.state === "processing").slice(0, 10);
  for (const entry of open) {
    const photo = await get(`/v1/photos/${entry.photo.id}`).catch(() => null);
    if (photo) follow(entry, photo);
  }
});

function follow(entry, photo) {
  entry.photo = photo;
  if (photo.status !== entry.state) change(entry, photo.status);
}

// --- the dock

function show() {
  if (dock) return dock.list;
  const element = document.getElementById("dock");
  dock = { element };
  dock.title = h("span", { class: "dock-title" });
  dock.fold = h("button", { type: "button", class: "dock-head", "aria-expanded": "true", "aria-controls": "uploads",
    on: { click: () => fold(!folded) } }, dock.title, icon("down"));
  dock.clear = h("button", { type: "button", class: "quiet small", "aria-label": "Close the list of uploads", title: "Close",
    on: { click: clear } }, icon("close"));
  dock.all = h("progress", { max: 1, value: 0, "aria-label": "All uploads" });
  dock.list = h("ul", { class: "upload-list", tabindex: "0", "aria-label": "Files", id: "uploads" });
  put(element, h("div", { class: "dock-bar" }, dock.fold, dock.clear), dock.all, dock.list);
  element.hidden = false;
  return dock.list;
}

function fold(closed) {
  folded = closed;
  dock.list.hidden = closed;
  dock.fold.setAttribute("aria-expanded", String(!closed));
}

/** Stop all uploads and forget them: the next who signs in sees none of their names. */
export function abandon() {
  const all = entries.splice(0);
  if (dock) clear();  // first, so that nothing is said of what was cancelled
  all.forEach(cancel);
}

/** A session ended by itself: the list waits unseen for the same key. */
export function hide() {
  if (dock) dock.element.hidden = true;
}

/** Somebody signed in: their list is shown again, another's is forgotten. */
export function unhide() {
  if (owner !== session.current.access_key) abandon();
  if (dock) dock.element.hidden = false;
}

function clear() {
  const rest = entries.filter((entry) => ["waiting", "sending", "pausing"].includes(entry.state));
  entries.splice(0, entries.length, ...rest);
  put(dock.list, rest.map((entry) => entry.row));
  if (rest.length) return sum();
  dock.element.hidden = true;
  put(dock.element);
  dock = null;
}

let told = "";

function sum() {
  if (!dock) return;
  const total = entries.length;
  const under = entries.filter((entry) => ["waiting", "sending", "pausing"].includes(entry.state)).length;
  const failed = entries.filter((entry) => entry.state === "failed").length;
  const developing = entries.filter((entry) => entry.state === "processing").length;
  const done = total - under;
  const bad = failed ? `, ${count(failed, "failed", "failed")}` : "";
  let title = `${count(total - failed, "photo")} ready${bad}`;
  if (under) title = `Uploading: ${done} of ${total}${bad}`;
  else if (developing) title = `Developing ${count(developing, "photo")}${bad}`;
  else if (failed === total) title = `${count(failed, "upload")} failed`;
  else if (entries.some((entry) => entry.state !== "ready")) title = `${count(entries.filter((entry) => entry.photo).length, "photo")} stored${bad}`;
  dock.title.textContent = title;
  dock.all.value = total ? done / total : 0;
  dock.all.hidden = !under;
  dock.clear.hidden = Boolean(under);
  const mark = under ? (done % 5 === 0 ? title : told) : title;
  if (mark !== told) say(mark);
  told = mark;
}

addEventListener("beforeunload", (event) => {
  if (isUploading()) event.preventDefault();
});

/** Whether this key may upload, and if not, why. */
export function whyNot() {
  return may("write") ? "" : "Your key may look but not upload: it lacks the scope write.";
}
