/**
 * Packings by symmetry: how to find more shards than trying one after the other does.
 *
 * The nodes of each zone are elements of a finite field GF(q), and a group moves them all at once:
 * x -> a x + b, with a from a subgroup of the multiplicative group (Kramer and Mesner, 1976: designs
 * with prescribed automorphisms). Fragments then fall into a few dozen or hundred orbits, and a shard
 * stands for the whole orbit of its images. If it meets every orbit of fragments at most once, its
 * images overlap nowhere too much, and a good packing is a choice of a few shards whose orbits of
 * fragments are disjoint: small enough for a local search. For 100 nodes, shards of 5 and overlap 1,
 * one shard over GF(101) is enough to reach the Johnson bound.
 *
 * q is at least the size of a zone; images on elements beyond it are left out at the end.
 */
import { Field, primeOf } from "./field.ts";
import { choose, Fragments, subsets } from "./fragments.ts";
import { type Lattice, type Shard, zoneStarts } from "./lattice.ts";
import { shardCountBound } from "./overlap.ts";
import type { KeyedRandom } from "./random.ts";

/** Fragments over all nodes and the elements that are none; more would cost seconds and memory. */
const FRAGMENT_COUNT_MAX = 5_000_000;
const FIELDS_TRIED_MAX = 3;
const GROUPS_TRIED_MAX = 2;
/** Orbits of fragments per fragment of a shard: above, a search takes long. */
const ORBITS_MAX = 20;
const SMALL_GROUP = 256;
const DRAWS_MAX = 80_000;
const SEARCH_STEPS = 1000;
const LOOKED_AT_MAX = 1500;

/** A shard that meets each of its orbits of fragments once, and stands for all its images. */
interface Candidate {
  points: number[];
  orbits: number[];
  /** Its images, itself included. */
  imageCount: number;
}

/** Shards with pairwise overlaps of at most `overlapMax`, as many as were found; maybe none. */
export function symmetricShards(
  lattice: Lattice,
  overlapMax: number,
  random: KeyedRandom,
): Shard[] {
  const bound = shardCountBound(lattice, overlapMax);
  let best: Shard[] = [];
  for (const { order, index } of groupsFor(lattice, overlapMax + 1)) {
    if (keptBound(lattice, overlapMax + 1, order) <= best.length) break;
    const group = new Group(lattice, overlapMax + 1, order, index);
    const chosen = disjoint(group.candidates(random), group.orbitCount, random);
    const shards = chosen.flatMap((candidate) => group.images(candidate));
    if (shards.length > best.length) best = shards;
    if (BigInt(best.length) === bound) break;
  }
  return best;
}

/** About what is left of a perfect packing over the field once the elements that are none go. */
function keptBound(
  { zoneSizes, perZone, shardSize }: Lattice,
  fragmentSize: number,
  order: number,
) {
  const shards = choose(zoneSizes.length * order, fragmentSize) / choose(shardSize, fragmentSize);
  const kept = (size: number) => choose(size, perZone) / choose(order, perZone);
  return zoneSizes.reduce((product, size) => product * kept(size), shards);
}

/** Groups over the smallest fields that have enough orbits, and few. */
function groupsFor(lattice: Lattice, fragmentSize: number): { order: number; index: number }[] {
  const { zoneSizes, shardSize } = lattice;
  const needed = choose(shardSize, fragmentSize);
  const groups: { order: number; index: number }[] = [];
  let fields = 0;
  const least = Math.max(...zoneSizes, 2);
  // Far above, hardly any image would use only nodes that there are.
  for (let order = least; order <= 2 * least && fields < FIELDS_TRIED_MAX; order++) {
    if (primeOf(order) === undefined) continue;
    const fragments = choose(zoneSizes.length * order, fragmentSize);
    if (fragments > FRAGMENT_COUNT_MAX) break;
    let groupsHere = 0;
    for (let index = 1; index < order && groupsHere < GROUPS_TRIED_MAX; index++) {
      const factorCount = (order - 1) / index;
      const orbitCount = fragments / (order * factorCount);
      if (!Number.isInteger(factorCount) || orbitCount < 0.8 * needed) continue;
      if (orbitCount > ORBITS_MAX * needed) break;
      // -1 turns every pair around, so that its images would come twice.
      if (fragmentSize === 2 && order % 2 === 1 && factorCount % 2 === 0) continue;
      groups.push({ order, index });
      groupsHere++;
    }
    if (groupsHere > 0) fields++;
  }
  return groups;
}

/** x -> a x + b over GF(q), where a runs over the powers of `primitive element ** index`. */
class Group {
  readonly #lattice: Lattice;
  readonly #field: Field;
  readonly #factors: readonly number[];
  readonly #fragments: Fragments;
  readonly #picks: readonly number[][];
  /** Orbit of each fragment. */
  readonly #orbitOf: Int32Array;
  readonly #orbitSizes: number[] = [];

  constructor(lattice: Lattice, fragmentSize: number, order: number, index: number) {
    this.#lattice = lattice;
    this.#field = new Field(order);
    this.#factors = Array.from({ length: (order - 1) / index }, (_, step) =>
      this.#field.power(step * index),
    );
    const pointCount = order * lattice.zoneSizes.length;
    this.#fragments = new Fragments(pointCount, fragmentSize);
    this.#picks = [...subsets(lattice.shardSize, fragmentSize)];
    this.#orbitOf = new Int32Array(this.#fragments.count).fill(-1);
    for (const fragment of subsets(pointCount, fragmentSize)) {
      if (this.#orbitOf[this.#fragments.rank(fragment)] === -1) this.#markOrbit(fragment);
    }
  }

  get orbitCount(): number {
    return this.#orbitSizes.length;
  }

  /** Shards drawn at random, plain ones and such as the group maps to themselves. */
  candidates(random: KeyedRandom): Candidate[] {
    const found = new Map<string, Candidate>();
    const { nodeCount, perZone, shardSize } = this.#lattice;
    const symmetries = subgroupSizes(this.#factors.length, perZone);
    // Enough that hardly an orbit of shards is missed where there are few.
    const shardOrbits = choose(nodeCount, shardSize) / this.#size;
    const draws = Math.min(DRAWS_MAX, Math.ceil(6 * shardOrbits) + 1000);
    for (let draw = 0; draw < draws; draw++) {
      const symmetry = draw % 8 === 0 ? symmetries[(draw / 8) % symmetries.length] : undefined;
      const points = this.#draw(random, symmetry ?? 1);
      const candidate = points && this.#candidate(points, symmetry ?? 1);
      if (candidate) found.set(candidate.orbits.toSorted((a, b) => a - b).join(), candidate);
    }
    return [...found.values()];
  }

  /** Elements of the group. */
  get #size(): number {
    return this.#factors.length * this.#field.order;
  }

  /** All images that use only nodes that there are. */
  images({ points }: Candidate): Shard[] {
    const starts = zoneStarts(this.#lattice);
    const { zoneSizes } = this.#lattice;
    const { order } = this.#field;
    const shards = new Map<string, Shard>();
    const zoneOf = (point: number) => Math.floor(point / order);
    this.#forImages(points, (image) => {
      if (image.some((point) => point % order >= (zoneSizes[zoneOf(point)] as number))) return;
      const nodes = image.map((point) => (starts[zoneOf(point)] as number) + (point % order));
      shards.set(nodes.join(), nodes);
    });
    return [...shards.values()];
  }

  /** Calls `visit` with every image of `points`, ascending; the array is the same each time. */
  #forImages(points: readonly number[], visit: (image: number[]) => void): void {
    const field = this.#field;
    const { order } = field;
    const zones = points.map((point) => order * Math.floor(point / order));
    const image = points.slice();
    for (const factor of this.#factors) {
      const scaled = points.map((point) => field.multiply(factor, point % order));
      for (let shift = 0; shift < order; shift++) {
        for (let at = 0; at < image.length; at++) {
          const moved = field.add(scaled[at] as number, shift) + (zones[at] as number);
          // Kept in order as it grows.
          let place = at;
          for (; place > 0 && (image[place - 1] as number) > moved; place--) {
            image[place] = image[place - 1] as number;
          }
          image[place] = moved;
        }
        visit(image);
      }
    }
  }

  #markOrbit(fragment: readonly number[]): void {
    const orbit = this.#orbitSizes.length;
    let size = 0;
    this.#forImages(fragment, (image) => {
      const rank = this.#fragments.rank(image);
      if (this.#orbitOf[rank] === -1) size++;
      this.#orbitOf[rank] = orbit;
    });
    this.#orbitSizes.push(size);
  }

  /**
   * Elements at random; with a symmetry above 1 a union of cosets of the subgroup of that many
   * factors, and 0 where one element more is needed. Undefined when cosets coincide.
   */
  #draw(random: KeyedRandom, symmetry: number): number[] | undefined {
    const { order } = this.#field;
    const { zoneSizes, perZone } = this.#lattice;
    const step = this.#factors.length / symmetry;
    const points: number[] = [];
    for (let zone = 0; zone < zoneSizes.length; zone++) {
      const taken = new Set<number>(symmetry > 1 && perZone % symmetry === 1 ? [0] : []);
      while (taken.size < perZone) {
        const first = random.below(order);
        for (let at = 0; at < symmetry; at++) {
          taken.add(this.#field.multiply(first, this.#factors[at * step] as number));
        }
      }
      if (taken.size !== perZone) return undefined;
      for (const element of taken) points.push(zone * order + element);
    }
    return points.sort((a, b) => a - b);
  }

  /**
   * Undefined when images of `points` would share a fragment. `symmetry` elements of the group are
   * known to map the points to themselves; there may be more.
   */
  #candidate(points: number[], symmetry: number): Candidate | undefined {
    const orbits = this.#picks.map(
      (pick) => this.#orbitOf[this.#fragments.rankIn(points, pick)] as number,
    );
    // All images cover an orbit (its fragments here x group / orbit / own symmetry) times, which
    // has to be once.
    const own = this.#weight(orbits, orbits[0] as number);
    if (own < symmetry) return undefined;
    const distinct = own === 1 ? orbits : [...new Set(orbits)];
    if (distinct.some((orbit) => this.#weight(orbits, orbit) !== own)) return undefined;
    // Looked at closely where that is cheap, or where there are few such draws.
    const isWorthIt = symmetry > 1 || this.#size <= SMALL_GROUP;
    if (own > symmetry && !(isWorthIt && this.#symmetryOf(points) === own)) return undefined;
    return { points, orbits: distinct, imageCount: this.#size / own };
  }

  #weight(orbits: readonly number[], orbit: number): number {
    let count = 0;
    for (const one of orbits) if (one === orbit) count++;
    return (count * this.#size) / (this.#orbitSizes[orbit] as number);
  }

  /** How many elements of the group map the points to themselves. */
  #symmetryOf(points: readonly number[]): number {
    const key = points.join();
    let count = 0;
    this.#forImages(points, (image) => {
      if (image.join() === key) count++;
    });
    return count;
  }
}

/** Sizes above 1 of subgroups of a cyclic group from whose cosets, and 0, a set can be made. */
function subgroupSizes(groupSize: number, setSize: number): number[] {
  const sizes: number[] = [];
  for (let size = 2; size <= setSize; size++) {
    if (groupSize % size === 0 && setSize % size <= 1) sizes.push(size);
  }
  return sizes;
}

/**
 * Candidates with disjoint orbits and many images. Local search: an orbit that nobody covers is
 * drawn, and covered by a candidate that costs no more images than it brings; who was put out may not
 * come back at once.
 */
function disjoint(
  candidates: readonly Candidate[],
  orbitCount: number,
  random: KeyedRandom,
): Candidate[] {
  const covering: number[][] = Array.from({ length: orbitCount }, () => []);
  for (const [at, { orbits }] of candidates.entries()) {
    for (const orbit of orbits) (covering[orbit] as number[]).push(at);
  }
  const state: Cover = {
    candidates,
    owners: new Int32Array(orbitCount).fill(-1),
    barredUntil: new Int32Array(candidates.length),
    chosen: new Set(),
    imageCount: 0,
  };
  let best: number[] = [];
  let bestCount = 0;
  for (let step = 1; step <= SEARCH_STEPS; step++) {
    const bare = bareOrbits(state.owners);
    if (bare.length === 0) break;
    const list = covering[bare[random.below(bare.length)] as number] as number[];
    if (list.length === 0) continue;
    const move = bestMove(state, list, random.below(list.length), step);
    if (move === undefined) continue;
    apply(state, move, step + 5 + random.below(15));
    if (state.imageCount > bestCount) {
      bestCount = state.imageCount;
      best = [...state.chosen];
    }
  }
  return best.map((at) => candidates[at] as Candidate);
}

interface Cover {
  candidates: readonly Candidate[];
  /** By orbit, the chosen candidate that covers it; -1 for none. */
  owners: Int32Array;
  /** By candidate, the step up to which it may not come back. */
  barredUntil: Int32Array;
  chosen: Set<number>;
  imageCount: number;
}

function bareOrbits(owners: Int32Array): number[] {
  const bare: number[] = [];
  for (const [orbit, owner] of owners.entries()) if (owner === -1) bare.push(orbit);
  return bare;
}

/** The candidate of the list that gains most, when it loses nothing: undefined when all lose. */
function bestMove(
  { candidates, owners, barredUntil }: Cover,
  list: readonly number[],
  start: number,
  step: number,
): number | undefined {
  let best: number | undefined;
  let bestGain = -1;
  for (let looked = 0; looked < Math.min(list.length, LOOKED_AT_MAX); looked++) {
    const at = list[(start + looked) % list.length] as number;
    if ((barredUntil[at] as number) > step) continue;
    const candidate = candidates[at] as Candidate;
    let gain = candidate.imageCount;
    const out: number[] = [];
    for (const orbit of candidate.orbits) {
      const owner = owners[orbit] as number;
      if (owner === -1 || out.includes(owner)) continue;
      out.push(owner);
      gain -= (candidates[owner] as Candidate).imageCount;
      if (gain <= bestGain) break;
    }
    if (gain > bestGain) {
      bestGain = gain;
      best = at;
    }
  }
  return best;
}

/** Chooses a candidate and puts out those in its way, which may not come back before `until`. */
function apply(cover: Cover, at: number, until: number): void {
  const { candidates, owners, chosen } = cover;
  const candidate = candidates[at] as Candidate;
  for (const orbit of candidate.orbits) {
    const owner = owners[orbit] as number;
    if (owner === -1 || !chosen.delete(owner)) continue;
    const loser = candidates[owner] as Candidate;
    for (const left of loser.orbits) owners[left] = -1;
    cover.imageCount -= loser.imageCount;
    cover.barredUntil[owner] = until;
  }
  for (const orbit of candidate.orbits) owners[orbit] = at;
  chosen.add(at);
  cover.imageCount += candidate.imageCount;
}
