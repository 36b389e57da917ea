/**
 * What the scripts of all pages share, and what they may assume of a browser.
 *
 * Scripts are written into pages as the source text of their functions, so these may use nothing
 * but each other and what stands here (`sharedScript`), which they declare and do not import.
 */

// The little of a browser that pages need; the project compiles without its DOM types.
export interface PageElement {
  textContent: string | null;
  clientWidth: number;
  replaceChildren(): void;
}

export interface PageDocument {
  querySelector(selector: string): PageElement | null;
  documentElement: PageElement;
}

export interface PageWindow {
  addEventListener(type: string, listener: () => void): void;
  matchMedia(query: string): { addEventListener(type: string, listener: () => void): void };
  getComputedStyle(element: unknown): { getPropertyValue(name: string): string };
}

/** Source text of the functions below; every page with a script has it. */
export function sharedScript(): string {
  return [short, drawAgain].map(String).join("\n");
}

/** A number for an axis or a legend: 1.5M, 250k, 0.04. */
export function short(value: number | null | undefined): string {
  if (value === null || value === undefined) return "";
  const units: [number, string][] = [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ];
  const [least, unit] = units.find(([least]) => Math.abs(value) >= least) ?? [1, ""];
  return `${+(value / least).toPrecision(3)}${unit}`;
}

/** Draws, and again whenever the page's width or its colours change. */
export function drawAgain(view: PageWindow, draw: () => void): void {
  draw();
  view.addEventListener("resize", draw);
  view.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
