// Writes gateway/ui/static/world.js to standard output: the outlines of the land, from Natural Earth (public domain)
// as the package world-atlas carries them. Run where node_modules has it: node make_world.mjs > world.js

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const load = createRequire(pathToFileURL(`${process.cwd()}/`));
const { feature } = load("topojson-client");
const world = load("world-atlas/land-110m.json");
const SCALE = 10;  // tenths of a degree: a map of some hundred pixels shows no more

const TURN = 360 * SCALE;

/** A ring as whole tenths, [x, y], without the leap at the date line: x goes on beyond 0 and 3600 instead. */
function unwrap(ring) {
  let turns = 0;
  let before = ring[0][0];
  return ring.map(([longitude, latitude]) => {
    if (Math.abs(longitude - before) > 180) turns += longitude < before ? 1 : -1;
    before = longitude;
    return [Math.round((longitude + 180) * SCALE) + turns * TURN, Math.round((90 - latitude) * SCALE)];
  });
}

/** Once more for what reaches over an edge of the map, and round by the pole for what encloses it. */
function copies(points) {
  const [first, last] = [points[0], points[points.length - 1]];
  const around = last[0] !== first[0];
  const closed = around ? [...points, [last[0], 180 * SCALE], [first[0], 180 * SCALE], first] : points;
  const [left, right] = [Math.min(...closed.map(([x]) => x)), Math.max(...closed.map(([x]) => x))];
  const shifts = [0, ...(left < 0 ? [TURN] : []), ...(right > TURN ? [-TURN] : [])];
  return shifts.map((shift) => closed.map(([x, y]) => [x + shift, y]));
}

function draw(points) {
  const kept = points.filter(([x, y], at) => at === 0 || x !== points[at - 1][0] || y !== points[at - 1][1]);
  if (kept.length < 4) return "";
  let [x, y] = kept[0];
  let path = `M${x} ${y}l`;
  for (const [nextX, nextY] of kept.slice(1, -1)) {
    const step = `${nextX - x}${nextY - y < 0 ? "" : " "}${nextY - y}`;
    path += path.endsWith("l") || step.startsWith("-") ? step : ` ${step}`;
    [x, y] = [nextX, nextY];
  }
  return `${path}z`;
}

const shapes = feature(world, world.objects.land).features.flatMap(({ geometry }) =>
  geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates);
const path = shapes.flat().flatMap((ring) => copies(unwrap(ring))).map(draw).join("");
process.stdout.write(`// Made by tests/browser/js/make_world.mjs from Natural Earth's land, 1:110m, which is in the public domain.
// Tenths of a degree: x from 180 degrees west, y from the north pole.
export const LAND = "${path}";
`);
