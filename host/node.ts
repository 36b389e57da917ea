/**
 * What the library has for Node alone: captures in files, on standard input and from streams of
 * Node. Everything else is in "flowplane".
 *
 * @packageDocumentation
 */
export { createCapture, openCapture } from "./capture/file.ts";
export { createOutput } from "./capture/output.ts";
export { openStream, type StreamSource } from "./capture/stream.ts";
export { UsageError } from "./errors.ts";
