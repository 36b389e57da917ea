/** The part of pcap-parser 0.2.1 that the adapter uses; the package has no types. */
declare module "pcap-parser" {
  import type { EventEmitter } from "node:events";

  export interface GlobalHeader {
    majorVersion: number;
    minorVersion: number;
    gmtOffset: number;
    timestampAccuracy: number;
    snapshotLength: number;
    linkLayerType: number;
  }
  export interface PacketHeader {
    timestampSeconds: number;
    timestampMicroseconds: number;
    capturedLength: number;
    originalLength: number;
  }
  /** Events: globalHeader, packetHeader, packet ({ header, data }), end, error. */
  export class Parser extends EventEmitter {
    readonly endianness: "BE" | "LE" | null;
  }
  export function parse(input: EventEmitter | string): Parser;
}
