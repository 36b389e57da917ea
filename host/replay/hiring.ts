/**
 * Threads for the workers of a replay. A thread takes 80 ms to begin, nearly all of it to load what it runs:
 * so they are hired before anything else is done, and told their task when there is one.
 *
 * Until then they keep nothing alive: a process that ends without a task for them ends.
 */
import { Worker } from "node:worker_threads";

const MODULE_URL = new URL(
  import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js",
  import.meta.url,
);

/** Starts `count` threads that wait for their task (`WorkerTask`, one message). */
export function hireThreads(count: number): Worker[] {
  return Array.from({ length: count }, () => {
    const thread = new Worker(MODULE_URL);
    thread.unref();
    return thread;
  });
}
