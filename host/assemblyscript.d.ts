/** AssemblyScript's integer types as TypeScript sees them, so that assembly/abi.ts reads as both. */
type u8 = number;
type u16 = number;
type u32 = number;
type usize = number;
