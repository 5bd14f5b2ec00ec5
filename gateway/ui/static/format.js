// Numbers, times and names as people read them. Knows no page.

const NUMBER = new Intl.NumberFormat("en");
const UNITS = ["bytes", "KB", "MB", "GB", "TB"];

export function size(bytes) {
  let unit = 0;
  let value = bytes;
  while (value >= 1000 && unit < UNITS.length - 1) { value /= 1000; unit += 1; }
  return `${unit && value < 100 ? value.toFixed(1) : NUMBER.format(Math.round(value))} ${UNITS[unit]}`;
}

export function count(number, one, many = `${one}s`) {
  return `${NUMBER.format(number)} ${number === 1 ? one : many}`;
}

export function number(value) {
  return NUMBER.format(value);
}

/** 0.034 -> 34 ms, 2.41 -> 2.4 s, 754 -> 12 min 34 s, 90000 -> 1 d 1 h */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const value = Math.max(0, seconds);
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  if (value < 59.5) return `${Math.round(value)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min${whole % 60 ? ` ${whole % 60} s` : ""}`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** How long ago, roughly: "just now", "5 min ago". */
export function ago(moment, now = Date.now()) {
  const seconds = (now - new Date(moment).getTime()) / 1000;
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.round(seconds)} s ago`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h ago`;
  return `${count(Math.round(seconds / 86400), "day")} ago`;
}

const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const SHORT_CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

/** A moment in the reader's own zone. */
export function time(moment) {
  const date = new Date(moment);
  return `${DAY.format(date)}, ${CLOCK.format(date)}`;
}

export function clock(moment) {
  return SHORT_CLOCK.format(new Date(moment));
}

/** A camera's local time, which has no zone: shown as it is. */
export function wall(text) {
  const match = /^(\d{4})-(\d\d)-(\d\d)T(\d\d:\d\d:\d\d)/.exec(text || "");
  if (!match) return text || "";
  const day = DAY.format(new Date(Number(match[1]), Number(match[2]) - 1, Number(match[3])));
  return `${day}, ${match[4]}`;
}

/** What a photo is called. */
export function nameOf(photo) {
  return photo.filename || photo.key.split("/").filter(Boolean).pop() || photo.key;
}

/** What a worker is called: its host and process. */
export function workerName(id) {
  return id.replace(/-[0-9a-f]{6}$/, "");
}

export function shutter(seconds) {
  if (!seconds) return null;
  if (seconds >= 0.3) return `${Number(seconds.toFixed(1))} s`;
  return `1/${NUMBER.format(Math.round(1 / seconds))} s`;
}

const WORDS = {
  processing: "Developing",
  ready: "Ready",
  partial: "Incomplete",
  rejected: "Rejected",
};

export function statusWord(status) {
  return WORDS[status] || status;
}
