/**
 * Numbers as people write them: thousands separated, three significant digits, and a unit.
 * Rates and sizes are decimal (1 kbit = 1000 bits), memory is binary (1 KiB = 1024 bytes).
 */

const DECIMAL = ["", "k", "M", "G", "T", "P"];
const BINARY = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
const SECONDS_PER = { minute: 60, hour: 3600, day: 86_400 };

/** An integer with thousands separated: 45,123. */
export function count(value: number): string {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** An integer and its noun, in the plural where it takes one: "1 packet", "2,000 packets". */
export function counted(value: number, noun: string, plural = `${noun}s`): string {
  return `${count(value)} ${value === 1 ? noun : plural}`;
}

/** Three significant digits, never an exponent: 0.0412, 7.1, 20.3, 1,230. */
export function significant(value: number): string {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return "n/a";
  // Rounded first: 0.9996 is 1.00, not 1.000.
  const magnitude = Math.floor(Math.log10(Math.abs(Number(value.toPrecision(3)))));
  if (magnitude >= 2) return count(value);
  return value.toFixed(Math.min(2 - magnitude, 12));
}

/** The value over the largest step of `base` that leaves at least 1, and which step that is. */
function scaled(value: number, base: number, steps: number): [value: number, step: number] {
  let step = 0;
  let rest = value;
  // 999.5 would be printed as 1,000 of the smaller unit.
  while (Math.abs(rest) >= base - 0.5 && step < steps - 1) {
    rest /= base;
    step += 1;
  }
  return [rest, step];
}

function withPrefix(value: number, unit: string): string {
  const [rest, step] = scaled(value, 1000, DECIMAL.length);
  return `${significant(rest)} ${DECIMAL[step]}${unit}`;
}

/** Bits per second, from Gbit/s. */
export function bitRate(gbps: number): string {
  return withPrefix(gbps * 1e9, "bit/s");
}

/** Packets per second, from millions per second. */
export function packetRate(mpps: number): string {
  return withPrefix(mpps * 1e6, "pps");
}

/** Amount of data, decimal: 31.2 MB. */
export function dataSize(bytes: number): string {
  return bytes < 1000 ? counted(bytes, "byte") : withPrefix(bytes, "B");
}

/** Amount of memory, binary: 64.0 MiB. */
export function memorySize(bytes: number): string {
  const [rest, step] = scaled(bytes, 1024, BINARY.length);
  return `${significant(rest)} ${BINARY[step]}`;
}

/** A time span: 812 ns, 1.50 ms, 12.3 s, 4 min 10 s, 2 h 5 min, 3 d 4 h. */
export function duration(seconds: number): string {
  const { minute, hour, day } = SECONDS_PER;
  if (seconds === 0) return "0 s";
  if (seconds < 1e-6) return `${significant(seconds * 1e9)} ns`;
  if (seconds < 1e-3) return `${significant(seconds * 1e6)} µs`;
  if (seconds < 1) return `${significant(seconds * 1e3)} ms`;
  if (seconds < minute) return `${significant(seconds)} s`;
  if (seconds < hour) return pair(seconds, minute, "min", 1, "s");
  if (seconds < day) return pair(seconds, hour, "h", minute, "min");
  return pair(seconds, day, "d", hour, "h");
}

function pair(seconds: number, large: number, largeUnit: string, small: number, smallUnit: string) {
  const smalls = Math.round(seconds / small);
  const ratio = large / small;
  const rest = smalls % ratio;
  const whole = `${count(Math.floor(smalls / ratio))} ${largeUnit}`;
  return rest === 0 ? whole : `${whole} ${rest} ${smallUnit}`;
}

/** A share in percent, one decimal; what is there but rounds to nothing is "<0.1 %". */
export function share(part: number, whole: number): string {
  if (whole === 0 || part === 0) return "0 %";
  const percent = (100 * part) / whole;
  if (percent < 0.05) return "<0.1 %";
  if (part < whole && percent >= 99.95) return ">99.9 %";
  return `${percent.toFixed(1)} %`;
}
