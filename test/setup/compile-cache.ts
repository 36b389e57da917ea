/**
 * One compile cache for all Node.js processes and threads that tests start (the environment variable
 * NODE_COMPILE_CACHE). They run the sources, and to strip the types and compile takes most of a
 * thread's start; with the cache only the first to load a module does it.
 *
 * The folder begins empty: nothing of an earlier run is used, and no more than one run is kept.
 * Processes write to it when they end, some after the last test.
 */
import { rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const FOLDER = fileURLToPath(new URL("../../build/compile-cache/", import.meta.url));

/** Runs once before all tests. */
export default function setup(): void {
  rmSync(FOLDER, { recursive: true, force: true, maxRetries: 5 });
  process.env.NODE_COMPILE_CACHE = FOLDER;
}
