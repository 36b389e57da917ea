/**
 * TUN devices (Linux, Documentation/networking/tuntap.rst): a network interface whose other end is a
 * file. Each read is one IP packet behind a virtio_net_hdr, each write one packet for the kernel.
 *
 * With offloads a packet may be a super-packet of 64 KiB with a partial checksum; what the kernel
 * has of them is tried from the best down. A device lives as long as its descriptors: it vanishes,
 * with its addresses and routes, when the process ends in whatever way.
 */
import { closeSync, openSync } from "node:fs";
import { FlowplaneError } from "../errors.ts";
import { CLONE_NEWNET, EBUSY, O_CLOEXEC, O_NONBLOCK, O_RDWR, type Syscalls } from "./syscalls.ts";

const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const TUNSETVNETHDRSZ = 0x400454d8;
const TUNSETSTEERINGEBPF = 0x800454e0;
const IFF_TUN = 0x0001;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const VNET_HEADER_BYTES = 12;
const IFREQ_BYTES = 40;
const IFREQ_FLAGS = 16;
export const NAME_BYTES_MAX = 15;

const CHECKSUM = 0x01;
const TSO = 0x02 | 0x04;
const USO = 0x20 | 0x40;

/** What a device hands over and takes: "udp" has everything, "tcp" no UDP super-packets. */
export type Offload = "udp" | "tcp" | "none";
const OFFLOADS: Readonly<Record<Offload, number>> = {
  udp: CHECKSUM | TSO | USO,
  tcp: CHECKSUM | TSO,
  none: 0,
};

export interface TunOptions {
  /** Interface name, at most 15 bytes. */
  name: string;
  /** File of the network namespace that the device is made in, such as /run/netns/NAME. */
  namespace: string;
  /** The best to ask for; the kernel may have less (UDP needs Linux 6.2). Default "udp". */
  offload?: Offload;
  /** One of several queues of the device; default false. */
  isMultiQueue?: boolean;
}

export interface Tun {
  fd: number;
  /** What the kernel granted. */
  offload: Offload;
}

/** Runs a part with the thread inside a network namespace, and brings the thread back. */
export function insideNamespace<T>(system: Syscalls, namespace: string, part: () => T): T {
  const own = openSync("/proc/thread-self/ns/net", "r");
  let other: number | undefined;
  try {
    other = openSync(namespace, "r");
    if (system.setns(other, CLONE_NEWNET) < 0) {
      throw new FlowplaneError(`${namespace}: cannot be entered; the lab runs as root`);
    }
    return part();
  } finally {
    system.setns(own, CLONE_NEWNET);
    closeSync(own);
    if (other !== undefined) closeSync(other);
  }
}

/**
 * Opens a TUN device, non-blocking, or one more queue of it.
 * @throws FlowplaneError that names the device and what the kernel said
 */
export function openTun(system: Syscalls, options: TunOptions): Tun {
  const { name, namespace, offload = "udp", isMultiQueue = false } = options;
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) {
    throw new FlowplaneError(`${name}: interface names have at most ${NAME_BYTES_MAX} bytes`);
  }
  return insideNamespace(system, namespace, () => {
    const fd = system.open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) throw failed("/dev/net/tun", "cannot be opened", fd);
    const request = new Uint8Array(IFREQ_BYTES);
    request.set(new TextEncoder().encode(name));
    const flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | (isMultiQueue ? IFF_MULTI_QUEUE : 0);
    new DataView(request.buffer).setUint16(IFREQ_FLAGS, flags, true);
    const made = system.ioctl(fd, TUNSETIFF, request);
    if (made < 0) {
      system.close(fd);
      const reason = made === -EBUSY ? "is in use already" : "cannot be made";
      throw failed(`device ${name}`, reason, made);
    }
    const size = new Uint8Array(4);
    size[0] = VNET_HEADER_BYTES;
    const sized = system.ioctl(fd, TUNSETVNETHDRSZ, size);
    if (sized < 0) {
      system.close(fd);
      throw failed(`device ${name}`, "refuses its header size", sized);
    }
    return { fd, offload: setOffload(system, fd, offload) };
  });
}

/** Asks for the best offload the kernel has, from `best` down. */
function setOffload(system: Syscalls, fd: number, best: Offload): Offload {
  const order: Offload[] = ["udp", "tcp", "none"];
  const granted = order
    .slice(order.indexOf(best))
    .find((one) => system.ioctl(fd, TUNSETOFFLOAD, OFFLOADS[one]) === 0);
  return granted ?? "none";
}

/** Gives a device a program that chooses the queue of each packet. */
export function steer(system: Syscalls, fd: number, program: number): number {
  const argument = new Uint8Array(4);
  new DataView(argument.buffer).setInt32(0, program, true);
  return system.ioctl(fd, TUNSETSTEERINGEBPF, argument);
}

function failed(what: string, how: string, error: number): FlowplaneError {
  return new FlowplaneError(`${what}: ${how} (error ${-error})`);
}
