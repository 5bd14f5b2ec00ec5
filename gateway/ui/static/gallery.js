// The photos, newest first: filters, endless paging, and whatever arrives or becomes ready while one looks.
// The list stays as it is while a photo of it is looked at, so that nobody loses their place.

import { asQuery, get, Problem, session } from "./api.js";
import { h, icon, loading, notice, put, settle, toast } from "./dom.js";
import { nameOf, statusWord } from "./format.js";
import { live } from "./live.js";
import { add, filesOf, uploads, whyNot } from "./uploads.js";

const PAGE = 60;
const FIELDS = ["status", "bucket", "prefix", "camera", "taken_after", "taken_before"];
const KEPT = new Map();  // id -> photo, of the list that is shown

let view = null;  // the page, kept
let order = [];  // ids as they are shown
let tiles = new Map();
let cursor = null;
let state = "empty";  // empty, loading, idle, ended, failed
let filter = {};
let generation = 0;
let scroll = 0;

export const title = "Photos";

export function open(outlet, _match, url) {
  const wanted = readFilter(url.searchParams);
  const fresh = !view || view.key !== session.current.access_key;
  if (fresh) build();
  put(outlet, view.root);
  if (fresh || JSON.stringify(wanted) !== JSON.stringify(filter)) {
    filter = wanted;
    scroll = 0;
    restart();
  } else {
    refresh();
  }
  showFilter();
  const remember = () => { scroll = scrollY; };
  // Not before that frame: what the page before has scrolled is told in it, and is not to be remembered here.
  const frame = requestAnimationFrame(() => {
    scrollTo(0, scroll);
    addEventListener("scroll", remember, { passive: true });
  });
  return { close: () => { cancelAnimationFrame(frame); removeEventListener("scroll", remember); } };
}

/** The neighbours of a photo in the list: {before, after}, ids or undefined. */
export function neighbours(id) {
  const at = order.indexOf(id);
  if (at >= 0 && at > order.length - 4) more();
  return at < 0 ? {} : { before: order[at - 1], after: order[at + 1] };
}

/** The address of the list as it was left, filter and all. */
export function address() {
  return `/${asQuery(filter)}`;
}

export function known(id) {
  return KEPT.get(id);
}

export function forget(id) {
  const tile = tiles.get(id);
  const next = tile && tile.contains(document.activeElement) && (tile.nextElementSibling || tile.previousElementSibling);
  if (tile) tile.remove();
  if (next) next.firstChild.focus();
  tiles.delete(id);
  KEPT.delete(id);
  order = order.filter((item) => item !== id);
  showState();
}

// --- the page

function build() {
  reset();
  const refused = whyNot();
  const picker = h("input", { type: "file", multiple: true, accept: "image/*,.heic,.heif,.avif,.tif,.tiff", class: "unseen", tabindex: "-1",
    "aria-label": "Photos to upload", on: { change: () => { send(picker.files); picker.value = ""; } } });
  const choose = h("button", { type: "button", class: "primary", on: { click: () => picker.click() } }, icon("upload"), "Choose photos");
  const place = placeField();
  const filters = filterForm();
  const toggle = h("button", { type: "button", "aria-expanded": "false", "aria-controls": "filters",
    on: { click: () => openFilter(filters.root.hidden) } }, icon("filter"), h("span", {}, "Filter"), h("span", { class: "pill", hidden: true }));
  const grid = h("ul", { class: "grid", role: "list" });
  const foot = h("div", { class: "grid-foot" });
  const root = h("div", { class: "page wide" },
    h("div", { class: "page-head" },
      h("div", {}, h("h1", { tabindex: "-1" }, "Photos"), h("p", { class: refused ? "lead" : "lead with-pointer" }, refused || "Drop photos anywhere on this page, or paste them.")),
      h("div", { class: "actions" }, seeker(), toggle, !refused && [picker, choose])),
    !refused && place.root, filters.root, grid, foot);
  const sentinel = new IntersectionObserver((seen) => seen.some((item) => item.isIntersecting) && more(), { rootMargin: "1200px" });
  const watch = () => { sentinel.unobserve(foot); sentinel.observe(foot); };  // anew: it tells changes alone
  view = { root, grid, foot, filters, toggle, place, choose, watch, key: session.current.access_key };
  watch();
}

/** The way to ask after a photo that is not here. */
function seeker(given = () => "") {
  const seek = async () => (await import("./whereabouts.js")).openSearch(given());
  return h("button", { type: "button", class: "seek", on: { click: seek } }, icon("search"), h("span", {}, "Where is my photo?"));
}

function placeField() {
  const places = session.current.places;
  if (places.length) {
    const select = h("select", { id: "place" }, places.map((item) => h("option", { value: item }, item)));
    return { root: h("p", { class: "place" }, h("label", { for: "place" }, "Uploads go to"), select), value: () => select.value };
  }
  const input = h("input", { id: "place", type: "text", autocomplete: "off", spellcheck: "false", placeholder: "photos/2026/summer/", maxlength: "600" });
  const root = h("details", { class: "place" },
    h("summary", {}, "Where uploads go"),
    h("label", { for: "place" }, "Bucket and folder"), input,
    h("p", { class: "hint" }, `Empty: a key of its own in ${session.current.default_bucket}. Otherwise each photo keeps its file's name there, and replaces what has that name, as in S3.`));
  return { root, value: () => input.value.trim() };
}

function send(files) {
  const place = view.place.value();
  if (files.length && !whyNot()) add(files, place);
}

function filterForm() {
  const field = (name, label, input) => h("div", { class: "field" }, h("label", { for: `f-${name}` }, label), input);
  const inputs = {
    status: h("select", { id: "f-status" }, h("option", { value: "" }, "Any"),
      ["ready", "processing", "partial", "rejected"].map((item) => h("option", { value: item }, statusWord(item)))),
    place: h("input", { id: "f-place", type: "text", placeholder: "photos/2026/", autocomplete: "off", spellcheck: "false" }),
    camera: h("input", { id: "f-camera", type: "text", placeholder: "Any", autocomplete: "off" }),
    taken_after: h("input", { id: "f-taken_after", type: "date" }),
    taken_before: h("input", { id: "f-taken_before", type: "date" }),
  };
  const apply = settle(() => navigateTo(inputs), 350);
  const root = h("form", { class: "filters", id: "filters", hidden: true, role: "search", "aria-label": "Filter photos",
    on: { submit: (event) => { event.preventDefault(); navigateTo(inputs); }, input: apply } },
    field("status", "Status", inputs.status), field("place", "Bucket and prefix", inputs.place), field("camera", "Camera", inputs.camera),
    field("taken_after", "Taken from", inputs.taken_after), field("taken_before", "Taken until", inputs.taken_before),
    h("button", { type: "button", class: "quiet", on: { click: () => clearFilter(inputs) } }, "Clear"));
  return { root, inputs };
}

function openFilter(wanted) {
  view.filters.root.hidden = !wanted;
  view.toggle.setAttribute("aria-expanded", String(wanted));
  if (wanted) view.filters.inputs.status.focus();
}

function clearFilter(inputs) {
  for (const input of Object.values(inputs)) input.value = "";
  navigateTo(inputs);
}

function navigateTo(inputs) {
  const query = new URLSearchParams();
  const [bucket, ...rest] = inputs.place.value.trim().split("/");
  const values = { status: inputs.status.value, bucket, prefix: rest.join("/"), camera: inputs.camera.value.trim(),
    taken_after: inputs.taken_after.value, taken_before: inputs.taken_before.value };
  for (const [name, value] of Object.entries(values)) if (value) query.set(name, value);
  const text = query.toString();
  history.replaceState(history.state, "", text ? `/?${text}` : "/");
  const wanted = readFilter(query);
  if (JSON.stringify(wanted) === JSON.stringify(filter)) return;
  filter = wanted;
  restart();
  showFilter();
}

function readFilter(query) {
  const given = FIELDS.map((name) => [name, query.get(name)]).filter(([, value]) => value);
  return Object.fromEntries(given);
}

function showFilter() {
  const { inputs, root } = view.filters;
  if (!root.contains(document.activeElement)) {
    for (const name of ["status", "camera", "taken_after", "taken_before"]) inputs[name].value = filter[name] || "";
    inputs.place.value = filter.bucket ? [filter.bucket, filter.prefix].filter((part) => part !== undefined).join("/") : "";
  }
  const active = FIELDS.filter((name) => filter[name] && name !== "prefix").length;
  const pill = view.toggle.querySelector(".pill");
  pill.hidden = !active;
  pill.textContent = active;
  if (active && root.hidden) { root.hidden = false; view.toggle.setAttribute("aria-expanded", "true"); }
}

function asked() {
  const query = { ...filter };
  if (query.taken_after) query.taken_after = `${query.taken_after}T00:00:00`;
  if (query.taken_before) {  // until a day means with that day
    const day = new Date(`${query.taken_before}T00:00:00Z`);
    day.setUTCDate(day.getUTCDate() + 1);
    query.taken_before = `${day.toISOString().slice(0, 10)}T00:00:00`;
  }
  return query;
}

// --- the list

function reset() {
  order = [];
  tiles = new Map();
  KEPT.clear();
  cursor = null;
  generation += 1;
}

function restart() {
  reset();
  put(view.grid);
  state = "empty";
  more();
}

async function more() {
  if (state === "loading" || state === "ended" || !session.current) return;
  if (state === "failed" && order.length === 0 && cursor) return;
  state = "loading";
  showState();
  const mine = generation;
  try {
    const page = await get("/v1/photos", { ...asked(), limit: PAGE, cursor });
    if (mine !== generation) return;
    merge(page.photos);
    cursor = page.next_cursor;
    state = cursor ? "idle" : "ended";
    showState();
    view.watch();  // its end may be in sight still
  } catch (error) {
    if (mine !== generation || !(error instanceof Problem)) return;
    state = "failed";
    showState(error);
  }
}

function merge(photos) {
  for (const photo of photos) {
    const before = KEPT.get(photo.id);
    KEPT.set(photo.id, photo);
    if (before) {
      if (JSON.stringify(before) !== JSON.stringify(photo)) dress(tiles.get(photo.id), photo);
      continue;
    }
    const tile = h("li", { class: "tile" });
    dress(tile, photo);
    tiles.set(photo.id, tile);
    const at = order.findIndex((id) => newer(photo, KEPT.get(id)));
    if (at < 0) {
      order.push(photo.id);
      view.grid.append(tile);
    } else {
      view.grid.insertBefore(tile, tiles.get(order[at]));
      order.splice(at, 0, photo.id);
    }
  }
}

function newer(one, other) {
  return one.created_at === other.created_at ? one.id > other.id : one.created_at > other.created_at;
}

/** The smallest preview that fills a tile, else the largest. */
export function previewFor(photo, pixels) {
  const usable = photo.artifacts.filter((item) => item.content_type.startsWith("image/"));
  const sorted = usable.sort((one, other) => one.width_px * one.height_px - other.width_px * other.height_px);
  return sorted.find((item) => Math.max(item.width_px, item.height_px) >= pixels) || sorted[sorted.length - 1];
}

function dress(tile, photo) {
  const name = nameOf(photo);
  const small = previewFor(photo, 300);
  const ratio = small ? Math.min(2.2, Math.max(0.56, small.width_px / small.height_px)) : 1.25;
  tile.style.setProperty("--ratio", ratio.toFixed(4));
  tile.dataset.status = photo.status;
  const picture = small
    ? h("img", { src: small.url, alt: "", width: small.width_px, height: small.height_px, loading: "lazy", decoding: "async" })
    : h("span", { class: "tile-blank" }, photo.status === "rejected" ? icon("ban") : photo.status === "partial" ? icon("alert") : h("span", { class: "lamp" }));
  const why = reasonOf(photo);
  const badge = photo.status === "ready" ? null : h("span", { class: `badge ${photo.status}` }, statusWord(photo.status));
  const link = tile.firstChild || tile.appendChild(h("a", { href: `/photos/${photo.id}` }));  // kept: it may have the focus
  link.title = name;
  put(link, picture,
    h("span", { class: "tile-text" }, badge, " ", h("span", { class: "tile-name" }, name), " ", why && h("span", { class: "tile-why" }, why)));
}

function reasonOf(photo) {
  if (photo.status === "rejected" && photo.rejection) return photo.rejection.detail || photo.rejection.code;
  const failed = photo.status === "partial" && photo.jobs.find((job) => job.state === "dead" || job.state === "discarded");
  return failed ? `${failed.processor}: ${failed.error ? failed.error.detail || failed.error.code : failed.state}` : "";
}

function showState(problem) {
  if (!view) return;
  const filtered = Object.keys(filter).length > 0;
  view.root.classList.toggle("is-empty", order.length === 0);
  if (state === "loading") return void put(view.foot, loading("photos"));
  if (state === "failed") {
    return void put(view.foot, notice("bad", "The photos cannot be shown.", h("p", {}, problem ? problem.sentence : ""),
      h("button", { type: "button", on: { click: () => { state = "idle"; more(); } } }, icon("replay"), "Try again")));
  }
  if (order.length === 0) return void put(view.foot, filtered ? nothingFound() : nothingYet());
  put(view.foot, state === "idle" ? h("button", { type: "button", on: { click: more } }, "Show more") : h("p", { class: "hint" }, "That is all of them."));
}

function nothingFound() {
  return h("div", { class: "empty" }, icon("search"), h("h2", {}, "No photo matches"),
    h("p", {}, "Change the filter, or look at all photos."),
    h("div", { class: "actions" }, h("button", { type: "button", on: { click: () => clearFilter(view.filters.inputs) } }, "Clear the filter"),
      seeker(() => view.filters.inputs.place.value.trim())));
}

function nothingYet() {
  const refused = whyNot();
  return h("div", { class: "empty drop" }, h("span", { class: "lamp big", "aria-hidden": "true" }), h("h2", {}, "No photos yet"),
    h("p", {}, refused || [h("span", { class: "with-pointer" }, "Drop some here. "), "Previews appear as they are developed, and the camera's facts with them."]),
    h("div", { class: "actions" }, !refused && h("button", { type: "button", class: "primary", on: { click: () => view.choose.click() } }, icon("upload"), "Choose photos"),
      seeker()));
}

// --- what arrives meanwhile

const soon = settle(refresh, 120);
let refreshing = false;
let again = false;
const touched = new Set();

async function refresh() {
  if (!view || !session.current || state === "empty") return;
  if (refreshing) { again = true; return; }
  refreshing = true;
  const mine = generation;
  try {
    const page = await get("/v1/photos", { ...asked(), limit: PAGE });
    if (mine !== generation) return;
    const had = order.length;
    merge(page.photos);
    const seen = new Set(page.photos.map((photo) => photo.id));
    vanish(page, seen);
    await lookUp([...KEPT.values()].filter((photo) => !seen.has(photo.id) && (touched.has(photo.id) || photo.status === "processing")));
    touched.clear();
    if (state === "ended" && page.next_cursor && order.length <= seen.size) { cursor = page.next_cursor; state = "idle"; }
    if (had !== order.length) showState();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  } finally {
    refreshing = false;
    if (again) { again = false; soon(); }
  }
}

/** What lies within the first page but is not on it any more: deleted, replaced, or out of the filter. */
function vanish(page, seen) {
  const last = page.photos[page.photos.length - 1];
  for (const id of [...order]) {
    const within = !page.next_cursor || newer(KEPT.get(id), last);
    if (within && !seen.has(id)) forget(id);
  }
}

async function lookUp(photos) {
  for (const photo of photos.slice(0, 24)) {
    const found = await get(`/v1/photos/${photo.id}`).catch((error) => (error.status === 404 ? null : photo));
    if (found === null || found.superseded_at || (filter.status && found.status !== filter.status)) forget(photo.id);
    else merge([found]);
  }
}

live.addEventListener("photo", ({ detail }) => {
  if (!view || !session.current) return;
  if (detail.type === "photo.deleted") return void forget(detail.data.photo_id);
  touched.add(detail.data.photo_id);
  soon();
});
live.addEventListener("tick", () => { if (view && view.root.isConnected) soon(); });
uploads.addEventListener("stored", () => soon());

// --- drop and paste, on every page

const veil = h("div", { class: "veil", hidden: true, "aria-hidden": "true" }, h("div", {}, icon("upload"), h("p", {}, "Drop to upload")));
let depth = 0;

export function takeDrops() {
  document.body.append(veil);
  addEventListener("dragenter", (event) => { if (wanted(event)) { depth += 1; veil.hidden = false; } });
  addEventListener("dragleave", (event) => { if (wanted(event)) { depth -= 1; veil.hidden = depth <= 0; } });
  addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
  addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    veil.hidden = true;
    if (session.current) deliver(await filesOf(event.dataTransfer));
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData ? event.clipboardData.files : [])];
    if (files.length && session.current) { event.preventDefault(); deliver(files); }
  });
}

function deliver(files) {
  const refused = whyNot();
  if (refused) return toast(refused, "bad");
  if (view) return send(files);
  return add(files, session.current.places[0] || "");
}

const hasFiles = (event) => Boolean(event.dataTransfer && [...event.dataTransfer.types].includes("Files"));
const wanted = (event) => hasFiles(event) && session.current && !whyNot();

/** Forget everything: somebody else may sign in. */
export function clear() {
  reset();
  view = null;
  state = "empty";
}
