/**
 * Flowplane as a library: everything that runs in Node and in browsers alike. Captures in files
 * are in "flowplane/node".
 *
 * @packageDocumentation
 */

export { MemoryOutput, openBytes } from "./capture/memory.ts";
export { CaptureReader, type ReaderOptions } from "./capture/reader.ts";
export type {
  ByteInput,
  ByteOutput,
  CaptureFormat,
  CaptureInterface,
  FrameMemory,
  FrameSink,
  FrameSource,
  InsertOptions,
  LeaveHook,
  RecordLayout,
  WalkExports,
} from "./capture/source.ts";
export { CaptureWriter } from "./capture/writer.ts";
export type { Clock } from "./clock.ts";
export type * from "./engine/api.ts";
export {
  COMPACT_FLOWS_PER_ADDRESS,
  type CompactEngine,
  type CompactOptions,
  type CompactPortOptions,
  createCompactEngine,
} from "./engine/compact.ts";
export { TIMEOUTS_DEFAULT } from "./engine/configure.ts";
export { createEngine, EMIT_NAMES, type Engine, VERDICT_NAMES } from "./engine/engine.ts";
export type { FrameExplanation } from "./engine/explain.ts";
export { type Departure, Frames } from "./engine/frames.ts";
export type { EngineExports } from "./engine/module.ts";
export type * from "./engine/network.ts";
export {
  createTablePacker,
  type PackedTables,
  type TablePacker,
  type TablePackerOptions,
} from "./engine/packer.ts";
export type { TableRoom } from "./engine/room.ts";
export { CaptureError, EngineError, FlowplaneError, HeaderError } from "./errors.ts";
export {
  createHeaderCodec,
  type HeaderCodec,
  type HeaderOptions,
  type ProxyHeader,
} from "./pp2/codec.ts";
export type { HeaderEncoder } from "./pp2/encoder.ts";
export {
  awsEndpoint,
  azureLink,
  gcpConnection,
  type SslState,
  sslState,
  sslTlv,
  TLV_TYPES,
  type Tlv,
  type TlvName,
  tlvName,
  tlvText,
} from "./pp2/tlv.ts";
