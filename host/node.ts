/**
 * What the library has for Node alone: captures in files and on standard input. Everything else is
 * in "flowplane".
 *
 * @packageDocumentation
 */
export { createCapture, openCapture } from "./capture/file.ts";
export { createOutput } from "./capture/output.ts";
export { UsageError } from "./errors.ts";
