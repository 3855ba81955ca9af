#!/usr/bin/env node
/* Turns the jobs of a BullMQ queue into calls through Breakerbox.

     npm install bullmq@6 ioredis@5
     node worker.mjs --redis 127.0.0.1:6379 --gateway http://127.0.0.1:8080 --dependency web

   Before it fetches, it asks the gateway whether a call could begin. So in an outage the jobs stay in
   their queue: none of them is called, and none uses up its attempts. A job ends completed, with the
   answer as its return value, or failed, when the attempts that its producer allows are used up by
   failures of its own, or at once if it can be no request. Several of these workers share the work.

   A job's data are {"path": …, "body": …, "headers": {…}}. It may be called twice, when a worker ends
   between the call and the answer: the service tells a repetition by "idempotency-key". */

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { UnrecoverableError, Worker } from "bullmq";

const MOST_AT_ONCE = 16;
const LONGEST_CALL = 30_000; // milliseconds, as all times here
const WRONG_CREDENTIALS = [401, 403, 407];

const { values: options } = parseArgs({
  options: {
    redis: { type: "string", default: "127.0.0.1:6379" },
    gateway: { type: "string", default: "http://127.0.0.1:8080" },
    dependency: { type: "string" },
    queue: { type: "string", default: "calls" },
    // How long a job stays with a worker that has ended; longer than a call takes.
    "claim-after": { type: "string", default: String(2 * LONGEST_CALL) },
  },
});
if (!options.dependency) {
  console.error("--dependency is missing: the name of a dependency of the gateway");
  process.exit(2);
}

const token = randomUUID();
const stopping = new AbortController();

/** Returns a request to the gateway. It throws if there can be none of this kind. */
function requestOf(path, more) {
  // Nothing goes past the gateway, least of all credentials.
  return new Request(options.gateway.replace(/\/$/, "") + path, { ...more, redirect: "manual" });
}

/** Asks the gateway, for at most `timeout`. Returns the status, the kind of the body, and the body. */
async function ask(request, timeout) {
  const response = await fetch(request, { signal: AbortSignal.timeout(timeout) });
  const isProblem = response.headers.get("content-type") === "application/problem+json";
  try {
    return { status: response.status, isProblem, body: await response.text() };
  } catch {
    return { status: 502, isProblem: false, body: "the answer was cut off" };
  }
}

/** Returns the number of calls that could begin, and the time until another question. */
async function ready(wait) {
  const path = `/.breakerbox/${options.dependency}/ready?wait=${wait}ms`;
  const { status, body } = await ask(requestOf(path), wait + LONGEST_CALL);
  if (status === 404) throw new Error(body);
  const told = JSON.parse(body);
  return status === 200 ? [told.available, 0] : [0, told.retry_after_ms ?? 1000];
}

/** Gives a job back for a while, without an attempt used up. */
async function giveBack(job, pause) {
  await job.moveToDelayed(Date.now() + pause, token);
}

/** Calls, and ends the job unless it has to wait. */
async function end(job) {
  const { path = "/", body = "", headers = {} } = job.data ?? {};
  let request;
  try {
    const sent = new Headers({ "content-type": "application/octet-stream" });
    for (const [name, value] of Object.entries(headers)) sent.set(name, value);
    sent.set("idempotency-key", `${options.queue}-${job.id}`);
    request = requestOf(`/${options.dependency}/${path.replace(/^\/+/, "")}`, {
      method: "POST", body, headers: sent,
    });
  } catch (error) {
    await job.moveToFailed(new UnrecoverableError(`malformed: ${error.message}`), token, false);
    return;
  }
  const answer = await ask(request, LONGEST_CALL);
  if (WRONG_CREDENTIALS.includes(answer.status)) {
    console.log(`status ${answer.status}: a job waits for other credentials`);
    return giveBack(job, LONGEST_CALL);
  }
  if (answer.status < 500 && answer.status !== 429) {
    await job.moveToCompleted({ status: answer.status, body: answer.body }, token, false);
    return;
  }
  const problem = answer.isProblem ? JSON.parse(answer.body) : {};
  // Refused, or paused: it is not the job's fault.
  if (problem.executed === "no") return giveBack(job, problem.retry_after_ms ?? 1000);
  // An outage is not held against a job: calls could still begin otherwise.
  const [available, pause] = await ready(0);
  if (answer.status === 429 || available < 2) return giveBack(job, pause || 1000);
  const cause = new Error(`status ${answer.status}: ${answer.body.slice(0, 500)}`);
  await job.moveToFailed(cause, token, false);
}

/** Fetches as many jobs as calls could begin, and ends them. */
async function round(worker) {
  const [available, pause] = await ready(5000);
  if (available === 0) {
    await sleep(Math.min(pause, 5000), undefined, { signal: stopping.signal });
    return;
  }
  const jobs = [];
  while (jobs.length < Math.min(available, MOST_AT_ONCE)) {
    // It waits for the first one alone.
    const job = await worker.getNextJob(token, { block: jobs.length === 0 });
    if (!job) break;
    jobs.push(job);
  }
  // Each comes to its own end before an error of one is told.
  const ended = await Promise.allSettled(jobs.map(end));
  const failed = ended.find((one) => one.status === "rejected");
  if (failed) throw failed.reason;
}

const [host, port] = options.redis.split(":");
const worker = new Worker(options.queue, null, {
  connection: { host, port: Number(port), maxRetriesPerRequest: null },
  lockDuration: Number(options["claim-after"]),
  stalledInterval: Number(options["claim-after"]),
  maxStalledCount: 1_000_000, // a worker that has ended is not the job's fault
  drainDelay: 1, // seconds that it waits for a job
});
worker.on("error", (error) => console.log(`not reachable: ${error.message}`));
await worker.startStalledCheckTimer();

for (const told of ["SIGTERM", "SIGINT"]) process.once(told, () => stopping.abort());
console.log("working");
while (!stopping.signal.aborted) {
  try {
    await round(worker);
  } catch (error) {
    if (stopping.signal.aborted) break;
    // Redis or the gateway is away: what was fetched comes again.
    console.log(`not reachable: ${error.cause?.message ?? error.message}`);
    await sleep(1000);
  }
}
await worker.close();
