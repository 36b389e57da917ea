/**
 * Finite fields GF(q), q = p^e: the arithmetic that makes good packings. An element is a number
 * from 0 to q - 1 whose digits in base p are the coefficients of a polynomial; products go through
 * logarithms to the base of a primitive element x.
 */

export class Field {
  readonly order: number;
  readonly #prime: number;
  /** Powers of the primitive element, twice around. */
  readonly #powers: Uint16Array;
  readonly #logarithms: Uint16Array;

  /** @throws RangeError when `order` is no prime power below 65,536 */
  constructor(order: number) {
    const prime = primeOf(order);
    if (prime === undefined || order > 0xffff) {
      throw new RangeError(`field: there is none of ${order} elements here`);
    }
    this.order = order;
    this.#prime = prime;
    this.#powers = new Uint16Array(2 * (order - 1));
    this.#logarithms = new Uint16Array(order);
    // x^e = c makes x primitive for some c; for a prime field that is x = c.
    for (let reduced = 1; !this.#powersOf(reduced); reduced++);
    for (let power = 0; power < order - 1; power++) {
      this.#powers[power + order - 1] = this.#powers[power] as number;
      this.#logarithms[this.#powers[power] as number] = power;
    }
  }

  add(a: number, b: number): number {
    const prime = this.#prime;
    if (this.order === prime) return a + b < prime ? a + b : a + b - prime;
    if (prime === 2) return a ^ b;
    let sum = 0;
    for (let place = 1; place < this.order; place *= prime) {
      const digit = (Math.floor(a / place) + Math.floor(b / place)) % prime;
      sum += digit * place;
    }
    return sum;
  }

  multiply(a: number, b: number): number {
    if (a === 0 || b === 0) return 0;
    const logarithms = this.#logarithms;
    return this.#powers[(logarithms[a] as number) + (logarithms[b] as number)] as number;
  }

  /** The primitive element to the power of `exponent`, 0 to q - 2. */
  power(exponent: number): number {
    return this.#powers[exponent] as number;
  }

  /** Fills the powers of x where x^e = `reduced`; false when x does not reach every element. */
  #powersOf(reduced: number): boolean {
    let element = 1;
    for (let power = 0; power < this.order - 1; power++) {
      if (power > 0 && element === 1) return false;
      this.#powers[power] = element;
      element = this.#timesX(element, reduced);
    }
    return element === 1;
  }

  /** One shift up; the digit that leaves comes back as so many times `reduced`. */
  #timesX(element: number, reduced: number): number {
    if (this.order === this.#prime) return (element * reduced) % this.#prime;
    const top = this.order / this.#prime;
    const leaving = Math.floor(element / top);
    let product = (element % top) * this.#prime;
    for (let times = 0; times < leaving; times++) product = this.add(product, reduced);
    return product;
  }
}

/** The prime of which `order` is a power; undefined when there is none. */
export function primeOf(order: number): number | undefined {
  if (order < 2) return undefined;
  let prime = 2;
  while (order % prime !== 0) prime++;
  let rest = order;
  while (rest % prime === 0) rest /= prime;
  return rest === 1 ? prime : undefined;
}
