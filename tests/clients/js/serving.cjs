// The loop of a driver: reads calls, one a line as JSON, and answers each with a line, in order.

"use strict";

const readline = require("node:readline");

const PARALLEL = 20;

// Answer calls of the client's methods until the input ends. `open` makes the client from the endpoint.
async function serve(open) {
  let client;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const message = JSON.parse(line);
    if (!client) {
      client = open(message);
      continue;
    }
    let answer;
    try {
      answer = { result: (await client[message.method](...message.arguments)) ?? null };
    } catch (error) {
      answer = { error: `${error.name}: ${error.message}` };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
  process.exit(0); // connections that are kept alive would keep the process, too
}

// Call work(key, path) for every file, 20 at once.
async function runAll(work, files) {
  const waiting = Object.entries(files);
  const run = async () => {
    for (let next = waiting.pop(); next; next = waiting.pop()) await work(...next);
  };
  await Promise.all(Array.from({ length: PARALLEL }, run));
}

module.exports = { serve, runAll, PARALLEL };
