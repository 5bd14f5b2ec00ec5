// What happens to photos, as it happens: server-sent events, and polling where they cannot be had.
// `live` tells "photo" ({type, data}), "tick" (look yourself) and "status" (live, polling, away).

import { asQuery, get, Problem, session, signedOut } from "./api.js";

export const live = new EventTarget();

const TYPES = ["photo.stored", "photo.ready", "photo.partial", "photo.rejected", "photo.deleted", "job.dead"];
const POLL_MS = 3000;
const CHECK_MS = 15000;  // beside the stream: an event may have been lost on its way
const RETRY_MS = 20000;
const HIDDEN_MS = 60000;  // a browser has six connections for all its tabs of one address

let source = null;
let lastId = "";
let timer = 0;
let retry = 0;
let hiding = 0;
let status = "away";
let busy = () => false;

/** Begin. `isBusy()`: whether the stream is wanted while nobody looks. */
export function start(isBusy) {
  busy = isBusy;
  document.addEventListener("visibilitychange", onVisibility);
  connect();
}

export function stop() {
  document.removeEventListener("visibilitychange", onVisibility);
  disconnect();
  lastId = "";
  say("away");
}

export function currentStatus() {
  return status;
}

function connect() {
  disconnect();
  if (!session.current) return;
  source = new EventSource(`/v1/events${asQuery({ types: TYPES.join(","), after: lastId })}`);
  source.onopen = () => { say("live"); tick(); };
  source.onerror = onError;
  source.addEventListener("stream.reset", tick);  // events were missed: look yourself
  for (const type of TYPES) source.addEventListener(type, onEvent);
  schedule();
}

function disconnect() {
  for (const handle of [timer, retry, hiding]) clearTimeout(handle);
  if (source) source.close();
  source = null;
}

function onEvent(event) {
  lastId = event.lastEventId || lastId;
  const body = JSON.parse(event.data);
  live.dispatchEvent(new CustomEvent("photo", { detail: { type: body.type, data: body.data } }));
}

async function onError() {
  say("polling");
  schedule();
  if (!source || source.readyState !== EventSource.CLOSED) return;  // the browser tries again by itself
  lastId = "";  // it may be no longer kept
  retry = setTimeout(connect, RETRY_MS);
  await get("/v1/session").catch((error) => {
    if (error instanceof Problem && error.status === 401) signedOut();
    else if (error instanceof Problem && error.status === 0) say("away");
  });
}

function schedule() {
  clearTimeout(timer);
  timer = setTimeout(() => { tick(); schedule(); }, status === "live" ? CHECK_MS : POLL_MS);
}

function tick() {
  if (session.current && (!document.hidden || busy())) live.dispatchEvent(new Event("tick"));
}

function onVisibility() {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(rest, HIDDEN_MS);
  else if (!source || source.readyState === EventSource.CLOSED) connect();
  else tick();
}

function rest() {
  if (busy()) hiding = setTimeout(rest, HIDDEN_MS);
  else disconnect();
}

function say(now) {
  if (now === status) return;
  status = now;
  live.dispatchEvent(new CustomEvent("status", { detail: now }));
}
