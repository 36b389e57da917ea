/**
 * The addresses of a NAT gateway (EC2 API: NatGatewayAddress). One is primary and stays; up to
 * seven more come and go. An address that is taken away drains: its flows go on, new ones use the
 * others, and it is released when the time is over. While one drains nothing else may change.
 */

export const ADDRESS_COUNT_MAX = 8;

export type NatAddressState = "succeeded" | "disassociating";

export interface NatAddress {
  address: string;
  isPrimary: boolean;
  state: NatAddressState;
  /** When a draining address is released. */
  dueMs: number;
}

/** A change that is not possible now: nothing has changed. */
export class NatRefusal extends Error {
  override readonly name = "NatRefusal";
}

export class NatAddresses {
  readonly #addresses: NatAddress[];
  readonly #drainMs: number;

  /** The first address is the primary one. */
  constructor(addresses: readonly string[], drainMs: number) {
    this.#drainMs = drainMs;
    this.#addresses = addresses.map((address, index) => ({
      address,
      isPrimary: index === 0,
      state: "succeeded",
      dueMs: Number.POSITIVE_INFINITY,
    }));
  }

  get addresses(): readonly NatAddress[] {
    return this.#addresses;
  }

  /** Those that new flows may leave with. */
  get serving(): string[] {
    const serving = this.#addresses.filter(({ state }) => state === "succeeded");
    return serving.map(({ address }) => address);
  }

  get nextMs(): number {
    return Math.min(Number.POSITIVE_INFINITY, ...this.#addresses.map(({ dueMs }) => dueMs));
  }

  /** @throws {NatRefusal} */
  associate(address: string, nowMs: number): void {
    this.tick(nowMs);
    this.#refuseWhileDraining();
    if (this.#addresses.some((one) => one.address === address)) {
      throw new NatRefusal(`${address} is associated already`);
    }
    if (this.#addresses.length >= ADDRESS_COUNT_MAX) {
      throw new NatRefusal(
        `${ADDRESS_COUNT_MAX} addresses are associated, as many as there may be`,
      );
    }
    const dueMs = Number.POSITIVE_INFINITY;
    this.#addresses.push({ address, isPrimary: false, state: "succeeded", dueMs });
  }

  /** @throws {NatRefusal} */
  disassociate(address: string, nowMs: number): void {
    this.tick(nowMs);
    this.#refuseWhileDraining();
    const found = this.#addresses.find((one) => one.address === address);
    if (!found) throw new NatRefusal(`${address} is not associated`);
    if (found.isPrimary) throw new NatRefusal(`${address} is the primary address, which stays`);
    found.state = "disassociating";
    found.dueMs = nowMs + this.#drainMs;
  }

  /** Releases what has drained long enough; returns those addresses, whose flows end. */
  tick(nowMs: number): string[] {
    const due = this.#addresses.filter(({ dueMs }) => dueMs <= nowMs);
    for (const one of due) this.#addresses.splice(this.#addresses.indexOf(one), 1);
    return due.map(({ address }) => address);
  }

  #refuseWhileDraining(): void {
    const draining = this.#addresses.find(({ state }) => state === "disassociating");
    if (draining) throw new NatRefusal(`${draining.address} drains; nothing may change meanwhile`);
  }
}
