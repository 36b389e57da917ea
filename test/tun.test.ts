/**
 * How TUN devices are opened: what is asked of the kernel, in which order, and what becomes of a
 * refusal. The kernel is played by a few lines that remember; real ones are in test/lab.test.ts.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { EBUSY, EINVAL, type Syscalls } from "../host/io/syscalls.ts";
import { type Offload, openTun } from "../host/io/tun.ts";

const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const TUNSETVNETHDRSZ = 0x400454d8;
const FD = 77;
/** The process's own, so that it can be entered without being root. */
const NAMESPACE = "/proc/self/ns/net";

interface Kernel {
  system: Syscalls;
  /** Bits of TUNSETOFFLOAD as they were asked for. */
  asked: number[];
  /** Bits that are in force. */
  offload: number;
  interfaceFlags: number;
  headerBytes: number;
  open: number[];
}

/** A kernel that knows the given bits of TUNSETOFFLOAD and refuses the given request. */
function kernel(known: number, refused: Record<number, number> = {}): Kernel {
  const one: Kernel = {
    system: undefined as unknown as Syscalls,
    asked: [],
    offload: 0,
    interfaceFlags: 0,
    headerBytes: 10,
    open: [],
  };
  const ioctl: Syscalls["ioctl"] = (fd, request, argument) => {
    expect(fd).toBe(FD);
    const error = refused[request];
    if (error !== undefined) return -error;
    if (request === TUNSETOFFLOAD) {
      one.asked.push(argument as number);
      if (((argument as number) & ~known) !== 0) return -EINVAL;
      one.offload = argument as number;
      return 0;
    }
    const view = new DataView((argument as Uint8Array).buffer);
    if (request === TUNSETIFF) one.interfaceFlags = view.getUint16(16, true);
    else if (request === TUNSETVNETHDRSZ) one.headerBytes = view.getInt32(0, true);
    else throw new Error(`ioctl ${request}`);
    return 0;
  };
  one.system = {
    ioctl,
    open: () => one.open.push(FD) && FD,
    close: (fd: number) => {
      one.open.splice(one.open.indexOf(fd), 1);
      return 0;
    },
    setns: () => 0,
  } as unknown as Syscalls;
  return one;
}

const opened = ({ system }: Kernel, offload?: Offload) =>
  openTun(system, { name: "fp0", namespace: NAMESPACE, ...(offload && { offload }) });

const CHECKSUM_TSO = 0x07;
const WITH_USO = 0x67;

describe("offloads", () => {
  test.each([
    ["Linux 6.2 and later", WITH_USO, undefined, "udp", [WITH_USO]],
    [
      "kernels before, which have no UDP super-packets",
      CHECKSUM_TSO,
      undefined,
      "tcp",
      [WITH_USO, CHECKSUM_TSO],
    ],
    ["a kernel that has none", 0, undefined, "none", [WITH_USO, CHECKSUM_TSO, 0]],
    ["a lab that wants no UDP", WITH_USO, "tcp", "tcp", [CHECKSUM_TSO]],
    ["a lab that wants none", WITH_USO, "none", "none", [0]],
  ] as const)("%s", (_, known, best, granted, asked) => {
    const one = kernel(known);
    expect(opened(one, best)).toEqual({ fd: FD, offload: granted });
    expect(one.asked).toEqual(asked);
    expect(one.interfaceFlags).toBe(0x1 | 0x1000 | 0x4000);
    expect(one.headerBytes).toBe(12);
    expect(one.open).toEqual([FD]);
  });

  test("what is said to be granted is what is in force, whatever a kernel knows", () => {
    const bits = { udp: WITH_USO, tcp: CHECKSUM_TSO, none: 0 };
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 0x7f }),
        fc.constantFrom<Offload>("udp", "tcp", "none"),
        (known, best) => {
          const one = kernel(known);
          const { offload } = opened(one, best);
          expect(one.offload).toBe(bits[offload]);
          expect(bits[offload]).toBeLessThanOrEqual(bits[best]);
        },
      ),
    );
  });
});

describe("a refusal names the device and leaves nothing open", () => {
  test.each([
    ["is in use already (error 16)", { [TUNSETIFF]: EBUSY }],
    ["cannot be made (error 1)", { [TUNSETIFF]: 1 }],
    ["refuses its header size (error 22)", { [TUNSETVNETHDRSZ]: EINVAL }],
  ])("%s", (message, refused) => {
    const one = kernel(WITH_USO, refused);
    expect(() => opened(one)).toThrow(`device fp0: ${message}`);
    expect(one.open).toEqual([]);
  });

  test("of a name that is too long", () => {
    const one = kernel(WITH_USO);
    const open = () => openTun(one.system, { name: "flowplane-tunnel", namespace: NAMESPACE });
    expect(open).toThrow("flowplane-tunnel: interface names have at most 15 bytes");
    expect(one.open).toEqual([]);
  });
});
