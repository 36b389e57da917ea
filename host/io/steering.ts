/**
 * Which queue of a device gets a packet: a program for the kernel (eBPF, socket filter) that sends
 * both directions of a flow to one worker, so that workers share nothing.
 *
 * The program returns the lane of the tuple that the packet carries: the low six bits of its ports,
 * source XOR destination, which is the same for both directions; the kernel takes it, without
 * the lowest, modulo the number of queues. A source port that is translated keeps its low bits (RFC 4787 REQ-4 asks it
 * of the lowest), so the other side of the flow has the same lane, as long as the target's port and
 * the listener's agree in those bits. ICMP errors go with the flow that they quote. Fragments
 * and protocols without ports have lane 0.
 */
import { FlowplaneError } from "../errors.ts";
import type { Syscalls } from "./syscalls.ts";
import { steer } from "./tun.ts";

const PROGRAM_TYPE_SOCKET_FILTER = 1;
const LANE_MASK = 63;
/**
 * Linux gives connections ports of one parity as long as it can, one after the other: the lowest bit
 * would send all of them to one worker, the next one takes turns.
 */
const PARITY_BITS = 1;
/** Numbers that `BUCKET` can leave. */
export const BUCKET_COUNT = (LANE_MASK + 1) >> PARITY_BITS;

const PROTOCOL_ICMP = 1;
const PROTOCOL_TCP = 6;
const PROTOCOL_UDP = 17;
const PROTOCOL_ICMPV6 = 58;

// Operation codes (Linux, Documentation/bpf/standardization/instruction-set.rst).
export const LOAD_BYTE = 0x30; //           r0 = packet[imm], relative to r6's packet
const LOAD_HALF = 0x28;
const LOAD_BYTE_AT = 0x50; //        r0 = packet[source + imm]
const LOAD_HALF_AT = 0x48;
export const MOVE = 0xbf; //                dst = src
export const MOVE_IMMEDIATE = 0xb7;
export const ADD = 0x0f;
export const ADD_IMMEDIATE = 0x07;
export const AND_IMMEDIATE = 0x57;
const SHIFT_LEFT = 0x67;
export const SHIFT_RIGHT = 0x77;
const XOR = 0xaf;
export const JUMP = 0x05;
export const JUMP_IF_EQUAL = 0x15;
export const JUMP_UNLESS_EQUAL = 0x55;
const JUMP_IF_ABOVE = 0x25;
export const EXIT = 0x95;

/** An instruction; a jump names its label. */
export interface Instruction {
  code: number;
  to?: number;
  from?: number;
  value?: number;
  /** Where a load or a store finds its word, from the register that it names. */
  offset?: number;
  label?: string;
}
export type Line = Instruction | string;

/**
 * Leaves the packet's bucket in register 0 and goes on at the end.
 * Registers: 0 what was loaded, 6 the packet, 7 protocol, 8 offset of the transport header, 9 a port.
 */
export const BUCKET: readonly Line[] = [
  { code: MOVE, to: 6, from: 1 },
  { code: LOAD_BYTE, value: 0 },
  { code: MOVE, to: 7, from: 0 },
  { code: SHIFT_RIGHT, to: 7, value: 4 },
  { code: JUMP_IF_EQUAL, to: 7, value: 6, label: "version 6" },
  { code: MOVE, to: 8, from: 0 },
  { code: AND_IMMEDIATE, to: 8, value: 15 },
  { code: SHIFT_LEFT, to: 8, value: 2 },
  { code: LOAD_HALF, value: 6 },
  { code: AND_IMMEDIATE, to: 0, value: 0x3fff },
  { code: JUMP_UNLESS_EQUAL, to: 0, value: 0, label: "none" },
  { code: LOAD_BYTE, value: 9 },
  { code: MOVE, to: 7, from: 0 },
  { code: JUMP_UNLESS_EQUAL, to: 7, value: PROTOCOL_ICMP, label: "transport" },
  // Errors of ICMP: the quoted packet begins 8 bytes on.
  { code: LOAD_BYTE_AT, from: 8, value: 0 },
  { code: JUMP_IF_EQUAL, to: 0, value: 3, label: "quote" },
  { code: JUMP_IF_EQUAL, to: 0, value: 11, label: "quote" },
  { code: JUMP_UNLESS_EQUAL, to: 0, value: 12, label: "none" },
  "quote",
  { code: LOAD_BYTE_AT, from: 8, value: 8 + 9 },
  { code: MOVE, to: 7, from: 0 },
  { code: LOAD_BYTE_AT, from: 8, value: 8 },
  { code: AND_IMMEDIATE, to: 0, value: 15 },
  { code: SHIFT_LEFT, to: 0, value: 2 },
  { code: ADD, to: 8, from: 0 },
  { code: ADD_IMMEDIATE, to: 8, value: 8 },
  { code: JUMP, label: "transport" },
  "version 6",
  { code: MOVE_IMMEDIATE, to: 8, value: 40 },
  { code: LOAD_BYTE, value: 6 },
  { code: MOVE, to: 7, from: 0 },
  { code: JUMP_UNLESS_EQUAL, to: 7, value: PROTOCOL_ICMPV6, label: "transport" },
  { code: LOAD_BYTE, value: 40 },
  { code: JUMP_IF_EQUAL, to: 0, value: 0, label: "none" },
  { code: JUMP_IF_ABOVE, to: 0, value: 4, label: "none" },
  { code: LOAD_BYTE, value: 48 + 6 },
  { code: MOVE, to: 7, from: 0 },
  { code: MOVE_IMMEDIATE, to: 8, value: 48 + 40 },
  "transport",
  { code: JUMP_IF_EQUAL, to: 7, value: PROTOCOL_TCP, label: "ports" },
  { code: JUMP_UNLESS_EQUAL, to: 7, value: PROTOCOL_UDP, label: "none" },
  "ports",
  { code: LOAD_HALF_AT, from: 8, value: 0 },
  { code: MOVE, to: 9, from: 0 },
  { code: LOAD_HALF_AT, from: 8, value: 2 },
  { code: XOR, to: 0, from: 9 },
  { code: AND_IMMEDIATE, to: 0, value: LANE_MASK },
  { code: SHIFT_RIGHT, to: 0, value: PARITY_BITS },
  { code: JUMP, label: "bucket" },
  "none",
  { code: MOVE_IMMEDIATE, to: 0, value: 0 },
  "bucket",
];

const PROGRAM: readonly Line[] = [...BUCKET, { code: EXIT }];

/** Lines with labels to instructions of eight bytes. */
export function assembled(lines: readonly Line[]): Uint8Array {
  const places = new Map<string, number>();
  const instructions: Instruction[] = [];
  for (const line of lines) {
    if (typeof line === "string") places.set(line, instructions.length);
    else instructions.push(line);
  }
  const bytes = new Uint8Array(instructions.length * 8);
  const view = new DataView(bytes.buffer);
  for (const [index, instruction] of instructions.entries()) {
    const { code, to = 0, from = 0, value = 0, offset = 0, label } = instruction;
    const place = label === undefined ? index + 1 : places.get(label);
    if (place === undefined) throw new Error(`steering: there is no label ${label}`);
    view.setUint8(index * 8, code);
    view.setUint8(index * 8 + 1, to | (from << 4));
    view.setInt16(index * 8 + 2, offset + place - index - 1, true);
    view.setInt32(index * 8 + 4, value, true);
  }
  return bytes;
}

/** Loads a program into the kernel; returns its descriptor. @throws FlowplaneError */
export function loadSteering(system: Syscalls, lines: readonly Line[] = PROGRAM): number {
  const program = system.loadProgram(PROGRAM_TYPE_SOCKET_FILTER, assembled(lines));
  if (program >= 0) return program;
  throw new FlowplaneError(`steering: the kernel refuses the program (error ${-program})`);
}

/** Gives devices the program. @throws FlowplaneError naming the device that refuses it */
export function steerAll(system: Syscalls, devices: readonly { name: string; fd: number }[]): void {
  const program = loadSteering(system);
  try {
    for (const { name, fd } of devices) {
      const done = steer(system, fd, program);
      if (done < 0) throw new FlowplaneError(`${name}: cannot be steered (error ${-done})`);
    }
  } finally {
    system.close(program);
  }
}
