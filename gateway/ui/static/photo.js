// One photo: how it looks, what its camera wrote, where it lies in S3, and what was done to it; and if something is
// missing, why.

import { call, get, may, Problem } from "./api.js";
import { confirm } from "./dialog.js";
import { copier, h, icon, loading, notice, put, refocus, say, toast } from "./dom.js";
import { ago, count, nameOf, number, shutter, size, statusWord, time, wall } from "./format.js";
import { address, forget, known, neighbours, previewFor } from "./gallery.js";
import { jobRow } from "./job.js";
import { live } from "./live.js";
import { navigate } from "./app.js";
import { verdict } from "./whereabouts.js";

export const title = "Photo";

export function open(outlet, match) {
  const id = match[1];
  const page = { id, outlet, root: h("div", { class: "page" }), reason: h("section", { class: "section", "aria-label": "Why" }), shown: "", told: "", closed: false, title: "Photo" };
  put(outlet, page.root);
  const early = known(id);
  if (early) page.title = nameOf(early);
  put(page.root, crumbs(page), early ? head(early) : [h("h1", { class: "unseen", tabindex: "-1" }, "Photo"), loading("the photo")]);
  const onPhoto = ({ detail }) => {
    if (detail.data.photo_id !== id) return;
    if (detail.type !== "photo.deleted") load(page);
    else if (!page.deleting) showGone(page);
  };
  const onTick = () => { if (page.photo && isLacking(page.photo)) load(page); };
  live.addEventListener("photo", onPhoto);
  live.addEventListener("tick", onTick);
  const onKey = (event) => step(event, page);
  document.addEventListener("keydown", onKey);
  load(page);
  page.close = () => {
    page.closed = true;
    live.removeEventListener("photo", onPhoto);
    live.removeEventListener("tick", onTick);
    document.removeEventListener("keydown", onKey);
  };
  return page;
}

async function load(page) {
  try {
    const photo = await get(`/v1/photos/${page.id}`);
    if (page.closed) return;
    if (JSON.stringify(photo) !== page.shown) take(page, photo);
    explain(page);
  } catch (error) {
    if (page.closed || !(error instanceof Problem)) return;
    if (error.status === 404) showGone(page);
    else if (!page.photo || !error.passing) showGone(page, "The photo cannot be shown", error.sentence);
  }
}

function take(page, photo) {
  page.shown = JSON.stringify(photo);
  page.photo = photo;
  page.title = nameOf(photo);
  document.title = `${page.title} · Safelight`;
  refocus(page.root, () => show(page, photo));
}

function showGone(page, heading = "There is no such photo", words = "It was deleted, or the key that you are signed in with may not see it.") {
  refocus(page.root, () => put(page.root, crumbs(page), h("div", { class: "empty" }, icon("search"), h("h1", { tabindex: "-1" }, heading), h("p", {}, words))));
}

function step(event, page) {
  if (event.target.closest("input, textarea, select, dialog, summary") || event.metaKey || event.ctrlKey || event.altKey) return;
  const { before, after } = neighbours(page.id);
  const to = { ArrowLeft: before, ArrowRight: after }[event.key];
  if (to) navigate(`/photos/${to}`, { replace: true });
}

function crumbs(page) {
  const { before, after } = neighbours(page.id);
  const arrow = (id, name, drawing) => id && h("a", { class: "button", href: `/photos/${id}`, "aria-label": name, title: name }, icon(drawing));
  return h("div", { class: "crumbs" }, h("a", { class: "button quiet", href: address() }, icon("left"), "Back to the photos"),
    h("div", {}, arrow(before, "Newer photo", "left"), arrow(after, "Older photo", "right")));
}

function show(page, photo) {
  const open = new Set([...page.root.querySelectorAll("details[open][data-part]")].map((item) => item.dataset.part));
  put(page.root, crumbs(page), superseded(photo), h("div", { class: "photo-page" }, stage(photo),
    h("div", { class: "photo-side" }, head(photo, page), page.reason, factsCard(photo), jobsCard(page, photo), storageCard(photo))));
  for (const part of page.root.querySelectorAll("details[data-part]")) if (open.has(part.dataset.part)) part.open = true;
}

function superseded(photo) {
  return photo.superseded_at && notice("warm", "Another photo lies under this key now.",
    h("p", {}, `This one was replaced ${ago(photo.superseded_at)}; its bytes are gone.`),
    h("a", { class: "button", href: `/?bucket=${encodeURIComponent(photo.bucket)}&prefix=${encodeURIComponent(photo.key)}` }, "Show the one that is there"));
}

function stage(photo) {
  const large = !photo.superseded_at && previewFor(photo, 1200);
  if (!large) {
    const developing = photo.status === "processing";
    return h("div", { class: "stage" }, h("div", { class: "empty" }, developing ? h("span", { class: "lamp big" }) : icon("ban"),
      h("p", {}, developing ? "There is no preview yet." : "There is no preview of this photo.")));
  }
  const sources = photo.artifacts.filter((item) => item.content_type.startsWith("image/")).map((item) => `${item.url} ${item.width_px}w`);
  return h("div", { class: "stage" }, h("img", { src: large.url, srcset: sources.join(", "), sizes: "(max-width: 1000px) 100vw, 60vw", alt: `Preview of ${nameOf(photo)}`, width: large.width_px, height: large.height_px }));
}

function head(photo, page) {
  const remove = page && may("admin") && may("write") && !photo.superseded_at && h("button", { type: "button", class: "danger", on: { click: () => ask(page, photo) } }, icon("trash"), "Delete");
  return h("div", { class: "photo-title" }, h("h1", { tabindex: "-1" }, nameOf(photo)), h("span", { class: `badge ${photo.status}` }, statusWord(photo.status)),
    page && h("div", { class: "actions" }, !photo.superseded_at && h("a", { class: "button", href: photo.links.original, download: nameOf(photo) }, icon("download"), `Original, ${size(photo.size_bytes)}`), remove));
}

async function ask(page, photo) {
  const sure = await confirm("Delete this photo?", [h("p", {}, `${nameOf(photo)}, its previews and its facts will be gone. There is no way back.`)], "Delete the photo", { danger: true });
  if (!sure) return;
  page.deleting = true;
  try {
    await call("DELETE", `/v1/photos/${photo.id}`);
    const { before, after } = neighbours(photo.id);
    forget(photo.id);
    toast(`${nameOf(photo)} was deleted.`, "good");
    navigate(after || before ? `/photos/${after || before}` : address(), { replace: true });
  } catch (error) {
    page.deleting = false;
    if (!(error instanceof Problem)) throw error;
    toast(error.sentence, "bad");
  }
}

// --- why something is missing

/** Whether something of it is missing that people look for. */
function isLacking(photo) {
  return !photo.superseded_at && (photo.status !== "ready" || !previewFor(photo, 1200));
}

/** Say why, as the gateway sees it now; say nothing of a photo that lacks nothing. */
async function explain(page) {
  const { photo } = page;
  const told = isLacking(photo) ? await get("/v1/explain", { photo_id: page.id }).catch(problemOf) : null;
  if (page.closed || page.photo !== photo) return;
  if (told instanceof Problem) return tellProblem(page, told);
  const text = JSON.stringify(told);
  if (text === page.told) return;
  page.told = text;
  if (told && told.verdict !== page.verdict) say(told.summary);
  page.verdict = told && told.verdict;
  put(page.reason, told && [verdict(told), hint(told)]);
}

function problemOf(error) {
  if (error instanceof Problem) return error;
  throw error;
}

function tellProblem(page, problem) {
  if (page.told) return;  // what was said last still helps
  put(page.reason, notice("warm", "Why it is so cannot be said now.", h("p", {}, problem.sentence)));
}

function hint(told) {
  const text = {
    dead: `Its attempts are below${may("admin") ? ", and it can be replayed there." : "."}`,
    rejected: "The original is kept as it came.",
    ready: "What is done makes no preview.",
  }[told.verdict];
  return text && h("p", { class: "hint" }, text);
}

// --- facts, grouped for people

function factsCard(photo) {
  const exif = photo.facts.exif;
  if (!exif) return null;
  const place = h("div", {});
  if (exif.gps_lat !== null && exif.gps_lat !== undefined) drawPlace(place, exif);
  return h("section", { class: "card facts", "aria-label": "Facts" },
    exif.exif_status === "none" && h("p", { class: "hint" }, "The file holds no EXIF: its camera or an editor wrote none, or took it out."),
    exif.exif_status === "damaged" && notice("warm", "The EXIF of this file is damaged; nothing of it could be read."),
    group("Exposure", exposure(exif), pairs([["Focal length", focal(exif)], ["Flash", exif.flash_fired === null ? null : exif.flash_fired ? "Fired" : "Did not fire"]])),
    group("Camera", pairs([["Camera", camera(exif)], ["Lens", exif.lens], ["Software", exif.software]])),
    group("When", pairs([["Taken", taken(exif)], ["In UTC", exif.taken_at_utc && wall(exif.taken_at_utc)]])),
    group("Where", place.firstChild && place),
    group("Picture", pairs([["Size", exif.width && `${number(exif.width)} × ${number(exif.height)} px, ${((exif.width * exif.height) / 1e6).toFixed(1)} MP`], ["Held", turned(exif.orientation)]])),
    group("Words", pairs([["Description", exif.description], ["Artist", exif.artist], ["Copyright", exif.copyright]])),
    others(photo), exif.raw && Object.keys(exif.raw).length > 0 && rawTags(exif.raw));
}

function group(name, ...parts) {
  const given = parts.filter(Boolean);
  return given.length ? h("section", {}, h("h2", {}, name), given) : null;
}

function pairs(list) {
  const given = list.filter(([, value]) => value);
  return given.length ? h("dl", { class: "pairs" }, given.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])) : null;
}

function exposure(exif) {
  const given = [shutter(exif.exposure_time_s), exif.f_number && `f/${Number(exif.f_number.toFixed(1))}`, exif.iso && `ISO ${exif.iso}`].filter(Boolean);
  return given.length ? h("ul", { class: "exposure" }, given.map((text) => h("li", {}, text))) : null;
}

function focal(exif) {
  const own = exif.focal_length_mm && `${Number(exif.focal_length_mm.toFixed(1))} mm`;
  const alike = exif.focal_length_35mm && `${exif.focal_length_35mm} mm`;
  return own && alike && own !== alike ? `${own}, as ${alike} on 35 mm film` : own || alike;
}

function camera(exif) {
  const { make, model } = exif;
  return model && make && !model.toLowerCase().startsWith(make.toLowerCase()) ? `${make} ${model}` : model || make;
}

function taken(exif) {
  if (!exif.taken_at_local) return null;
  return `${wall(exif.taken_at_local)}${exif.taken_at_offset ? ` (UTC${exif.taken_at_offset})` : ", the camera's clock"}`;
}

function turned(orientation) {
  return { 3: "Upside down", 6: "Turned right", 8: "Turned left", 2: "Mirrored", 4: "Mirrored, upside down", 5: "Mirrored, turned", 7: "Mirrored, turned" }[orientation];
}

async function drawPlace(place, exif) {
  place.append(h("p", { class: "hint" }, "Drawing the map …"));
  const { degrees, drawMap } = await import("./map.js");
  const where = degrees(exif.gps_lat, exif.gps_lon);
  put(place, drawMap(exif.gps_lat, exif.gps_lon), h("p", { class: "keyline" }, where, copier(`${exif.gps_lat}, ${exif.gps_lon}`, "the coordinates")),
    exif.gps_alt !== null && h("p", { class: "hint" }, `${number(Math.round(exif.gps_alt))} m above sea level`));
}

function others(photo) {
  const names = Object.keys(photo.facts).filter((name) => name !== "exif" && Object.keys(photo.facts[name] || {}).length);
  return names.map((name) => h("details", { "data-part": `facts-${name}` }, h("summary", {}, `Facts of ${name}`), h("pre", { tabindex: "0" }, JSON.stringify(photo.facts[name], null, 2))));
}

function rawTags(raw) {
  const rows = Object.entries(raw).sort(([one], [other]) => one.localeCompare(other));
  return h("details", { "data-part": "raw" }, h("summary", {}, `All ${count(rows.length, "tag")} of the file`),
    h("div", { class: "raw", tabindex: "0", role: "region", "aria-label": "All tags" }, h("table", {}, h("tbody", {}, rows.map(([name, value]) =>
      h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, typeof value === "object" ? JSON.stringify(value) : String(value))))))));
}

// --- jobs and storage

function jobsCard(page, photo) {
  if (!photo.jobs.length) return null;
  const again = () => { page.shown = ""; load(page); };
  return h("section", { class: "card", "aria-label": "Jobs" }, h("h2", {}, "Jobs"),
    photo.jobs.map((job) => {
      const row = jobRow(job, { onChange: again });
      row.dataset.part = `job-${job.id}`;
      return row;
    }));
}

function storageCard(photo) {
  const line = (label, bucket, key, about, link) => h("div", { class: "row" }, h("div", { class: "grow" }, h("p", { class: "strong" }, label, about && h("span", { class: "hint" }, ` ${about}`)),
    h("p", { class: "keyline mono" }, h("code", {}, `${bucket}/${key}`), copier(`s3://${bucket}/${key}`, `the S3 address of ${label.toLowerCase()}`))),
  link && h("a", { class: "button small", href: link, target: "_blank", rel: "noopener" }, "Open"));
  return h("section", { class: "card", "aria-label": "In S3" }, h("h2", {}, "In S3"), h("div", { class: "rows" },
    line("Original", photo.bucket, photo.key, `${photo.content_type}, ${size(photo.size_bytes)}`),
    photo.artifacts.map((item) => line(item.preset, item.bucket, item.key, `${item.width_px} × ${item.height_px}, ${size(item.size_bytes)}`, item.url))),
  h("details", { "data-part": "file" }, h("summary", {}, "About the file"), pairs([
    ["Id", h("span", { class: "keyline" }, h("code", {}, photo.id), copier(photo.id, "the photo's id"))],
    ["Request, in the logs", photo.request_id && h("span", { class: "keyline" }, h("code", {}, photo.request_id), copier(photo.request_id, "the request's id, as the logs have it"))],
    ["Stored", time(photo.created_at)], ["Settled", photo.settled_at && time(photo.settled_at)],
    ["ETag", h("code", {}, photo.etag)], ["Version", photo.version_id && h("code", {}, photo.version_id)], ["SHA-256", photo.sha256 && h("code", {}, photo.sha256)]])));
}
