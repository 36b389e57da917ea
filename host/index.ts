/**
 * Flowplane as a library: everything that runs in Node and in browsers alike. Captures from files
 * and the command line's own parts are in "flowplane/node".
 */
export type * from "./engine/api.ts";
export { TIMEOUTS_DEFAULT } from "./engine/configure.ts";
export { createEngine, Engine, VERDICT_NAMES } from "./engine/engine.ts";
