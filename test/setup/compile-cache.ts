/**
 * One compile cache for all Node.js processes and threads that tests start (the environment variable
 * NODE_COMPILE_CACHE). They run the sources, and to strip the types and compile takes most of a
 * thread's start; with the cache only the first to load a module does it.
 *
 * The folder lasts as long as the run: nothing of an earlier one is used.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Runs once before all tests, and what it returns after them. */
export default function setup(): () => void {
  const folder = mkdtempSync(join(tmpdir(), "flowplane-compiled-"));
  process.env.NODE_COMPILE_CACHE = folder;
  // A process that ends now may still write into it.
  return () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
}
