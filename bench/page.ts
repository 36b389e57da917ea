/** placeholder while the page is written */
export async function writePage(_file: string, _result: unknown): Promise<void> {}
