/**
 * The process of one node of a lab (fleet.ts starts it): an engine of its own with a queue of every
 * device, whose descriptors it has inherited. It decides no flow by itself: it asks the store, or the
 * lab's process where that has the store.
 *
 * It ends when the lab's process does, in whatever way that ends.
 */

import { renew } from "../nodes/agreement.ts";
import { openRedisStore, type RedisStoreOptions } from "../nodes/redis-store.ts";
import { type Answers, decide, type Questions } from "../nodes/undecided.ts";
import { Channel } from "./channel.ts";
import type { Method, WorkerApi } from "./messages.ts";
import { DataPlane, type PlaneStart } from "./plane.ts";

export interface NodeStart {
  plane: PlaneStart;
  /** How long decisions live. */
  ttlMs: number;
  /** Undefined: the lab's process is asked. */
  redis: RedisStoreOptions | undefined;
}

/** Whom a node asks. */
interface Authority {
  decide(questions: Questions, nowMs: number): Promise<Answers>;
  renew(decisions: Uint8Array[], nowMs: number): Promise<boolean[]>;
}

/** Decisions are refreshed that often in the time that they live. */
const REFRESHES = 8;

let plane: DataPlane | undefined;
const channel = new Channel(process, {
  start,
  call: async (method: Method, words: Parameters<WorkerApi[Method]>) => {
    return (await running().all(method, ...words))[0];
  },
  stop: () => running().stop(),
});

// ctrl-C reaches all processes of a terminal; the lab's process ends its nodes itself.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => undefined);
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));

function running(): DataPlane {
  if (plane === undefined) throw new Error("node: has not started yet");
  return plane;
}

async function start({ plane: options, ttlMs, redis }: NodeStart): Promise<void> {
  const authority = redis === undefined ? theLab : await ofRedis(redis);
  const started = await DataPlane.start(options);
  plane = started;
  started.onAsk = (questions, nowMs) => authority.decide(questions, nowMs);
  started.onGone = (device) => void channel.call("gone", device);
  started.onCaptureEnded = (reason) => void channel.call("captureEnded", reason);
  void started.failed.then(() => process.exit(1));
  refreshForEver(started, authority, options.originMs, ttlMs);
}

const theLab: Authority = {
  decide: (questions, nowMs) => channel.call("decide", questions, nowMs) as Promise<Answers>,
  renew: (decisions, nowMs) => channel.call("renew", decisions, nowMs) as Promise<boolean[]>,
};

async function ofRedis(options: RedisStoreOptions): Promise<Authority> {
  const store = await openRedisStore(options);
  return {
    decide: (questions, nowMs) => decide(store, questions, nowMs),
    renew: (decisions, nowMs) => renew(store, decisions, nowMs),
  };
}

/**
 * Lets the decisions of this node's flows live on, and ends flows that have lost theirs. When the
 * store could not be asked for a whole life all of them end: another node may have their tuples.
 */
function refreshForEver(
  of: DataPlane,
  authority: Authority,
  originMs: number,
  ttlMs: number,
): void {
  let refreshedMs = Date.now();
  const refresh = async () => {
    let isAsked = true;
    for (let after = 0; ; ) {
      const [part] = await of.all("decided", after);
      if (part === undefined) return;
      const decisions = part.flows.map(({ decision }) => decision);
      const answers = await authority
        .renew(decisions, Date.now() - originMs)
        .catch(() => undefined);
      if (answers === undefined) isAsked = false;
      const isOver = answers === undefined && Date.now() - refreshedMs >= ttlMs;
      const lost = part.flows.filter((_, at) => isOver || answers?.[at] === false);
      if (lost.length > 0) await of.all("end", lost);
      if (part.last === 0) break;
      after = part.last;
    }
    if (isAsked) refreshedMs = Date.now();
  };
  const next = () => setTimeout(() => refresh().then(next, next), ttlMs / REFRESHES).unref();
  next();
}
