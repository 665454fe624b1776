//! Is this file a program that this machine can run as a Worker?

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::read::{ReadCache, ReadRef};

use crate::registry::Linkage;

/// Longest `PT_INTERP`, bytes.
const INTERPRETER_BYTES: u64 = 4096;
/// Most program headers.
const PROGRAM_HEADERS: u16 = 256;
/// Where loaders may lie: the folders that a dynamically linked Worker is given.
const LIBRARY_FOLDERS: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// The machine of this supervisor, as ELF numbers it.
#[cfg(target_arch = "x86_64")]
pub const MACHINE: u16 = elf::EM_X86_64.0;
/// The machine of this supervisor, as ELF numbers it.
#[cfg(target_arch = "aarch64")]
pub const MACHINE: u16 = elf::EM_AARCH64.0;

/// Why a file is not a program for this machine.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// No byte.
    #[error("the file is empty")]
    Empty,
    /// A script.
    #[error(
        "the file is a script ({0:?}), not an ELF program: deploy its interpreter, with the script in `files`"
    )]
    Script(String),
    /// Some other file.
    #[error("the file is not an ELF program (it starts with {0}): deploy a Linux executable")]
    NotElf(String),
    /// A program of another class, byte order or machine.
    #[error("the program is for {found}, this machine is {}: build it for that", machine(MACHINE))]
    Machine {
        /// What it is for.
        found: String,
    },
    /// An object file, a library, a core dump.
    #[error("the ELF file is {0}, not an executable")]
    Kind(&'static str),
    /// Cut short or senseless.
    #[error("the ELF file is damaged: {0}")]
    Malformed(String),
    /// Its loader is not on this machine, or lies where Workers have none.
    #[error(
        "the program needs the loader {} which {why}: link it statically, or install what provides that loader",
        path.display()
    )]
    Loader {
        /// `PT_INTERP`.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Reading failed.
    #[error("the file can't be read: {0}")]
    Io(#[from] io::Error),
}

fn machine(number: u16) -> String {
    match number {
        3 => "32-bit x86".to_owned(),
        8 => "MIPS".to_owned(),
        20 | 21 => "PowerPC".to_owned(),
        22 => "s390".to_owned(),
        40 => "32-bit ARM".to_owned(),
        62 => "x86-64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "RISC-V".to_owned(),
        247 => "BPF".to_owned(),
        258 => "LoongArch".to_owned(),
        other => format!("machine number {other}"),
    }
}

/// What the headers say.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// Whether it needs a loader.
    pub linkage: Linkage,
    /// Why it would have memory that is writable and executable from its start, which no filter sees, as the
    /// kernel maps it: an executable stack, or such a segment. For Workers with the waiver `jit` alone.
    pub writes_code: Option<&'static str>,
}

/// Checks the headers; reads little of the file however large it is.
pub fn check(file: File) -> Result<Program, BinaryError> {
    let size = file.metadata()?.len();
    let cache = ReadCache::new(file);
    check_data(&cache, size)
}

/// The same for anything that can be read.
pub(super) fn check_data<'d, R: ReadRef<'d>>(data: R, size: u64) -> Result<Program, BinaryError> {
    let ident = data.read_bytes_at(0, size.min(16)).unwrap_or_default();
    ident_of(ident, data, size)?;
    let malformed = |error: object::read::Error| BinaryError::Malformed(error.to_string());
    let header = FileHeader64::<Endianness>::parse(data).map_err(malformed)?;
    let endian = header.endian().map_err(malformed)?;
    match header.e_type(endian) {
        elf::ET_EXEC | elf::ET_DYN => {}
        elf::ET_REL => return Err(BinaryError::Kind("an object file")),
        elf::ET_CORE => return Err(BinaryError::Kind("a core dump")),
        _ => return Err(BinaryError::Kind("of an unknown type")),
    }
    if header.e_entry(endian) == 0 {
        return Err(BinaryError::Kind("a library without an entry point"));
    }
    if header.e_phnum(endian) > PROGRAM_HEADERS {
        return Err(BinaryError::Malformed(format!("more than {PROGRAM_HEADERS} program headers")));
    }
    let mut interpreter = None;
    let mut loads = false;
    let mut writes_code = None;
    for segment in header.program_headers(endian, data).map_err(malformed)? {
        let (offset, length) = segment.file_range(endian);
        let inside = offset.checked_add(length).is_some_and(|end| end <= size);
        match segment.p_type(endian) {
            elf::PT_LOAD if !inside || length > segment.p_memsz(endian) => {
                return Err(BinaryError::Malformed(
                    "a segment reaches past the file's end: it was cut short".to_owned(),
                ));
            }
            elf::PT_LOAD => {
                loads = true;
                let flags = segment.p_flags(endian);
                if flags.contains(elf::PF_W | elf::PF_X) {
                    writes_code = Some("a segment that is writable and executable");
                } else if flags.contains(elf::PF_X) && segment.p_memsz(endian) > length {
                    // The kernel maps the rest writable whatever the flags say (vm_brk_flags in fs/binfmt_elf.c).
                    writes_code = Some("an executable segment that is longer than what the file has of it");
                }
            }
            elf::PT_GNU_STACK if segment.p_flags(endian).contains(elf::PF_X) => {
                writes_code = Some(
                    "an executable stack (linked with `-z execstack`, or of assembler without a .note.GNU-stack)",
                );
            }
            elf::PT_INTERP if !inside || length > INTERPRETER_BYTES => {
                return Err(BinaryError::Malformed("the loader's name is out of bounds".to_owned()));
            }
            elf::PT_INTERP => {
                let name = data.read_bytes_at(offset, length);
                let name =
                    name.map_err(|()| BinaryError::Malformed("the loader's name is out of bounds".into()))?;
                // The kernel takes the first, and not a word of the others.
                if interpreter.replace(name).is_some() {
                    return Err(BinaryError::Malformed("it names two loaders".to_owned()));
                }
            }
            _ => {}
        }
    }
    if !loads {
        return Err(BinaryError::Malformed("nothing in it is to be loaded".to_owned()));
    }
    let linkage = interpreter.map_or(Ok(Linkage::Static), loader)?;
    Ok(Program { linkage, writes_code })
}

/// Everything that can be said from the first 20 bytes, in words for people.
fn ident_of<'d, R: ReadRef<'d>>(ident: &[u8], data: R, size: u64) -> Result<(), BinaryError> {
    if size == 0 {
        return Err(BinaryError::Empty);
    }
    if ident.starts_with(b"#!") {
        let line = data.read_bytes_at(0, size.min(80)).unwrap_or_default();
        let line = line.split(|&b| b == b'\n').next().unwrap_or_default();
        return Err(BinaryError::Script(String::from_utf8_lossy(line).into_owned()));
    }
    let Some(&[0x7f, b'E', b'L', b'F', class, order]) = ident.first_chunk::<6>() else {
        let start = ident.get(..4).unwrap_or(ident);
        return Err(BinaryError::NotElf(
            start.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
        ));
    };
    let number = data.read_bytes_at(18, 2).unwrap_or_default();
    let &[low, high] = number else {
        return Err(BinaryError::Malformed("it ends inside its header".to_owned()));
    };
    let number = if order == 2 { u16::from_be_bytes([low, high]) } else { u16::from_le_bytes([low, high]) };
    if class != 2 || order != 1 || number != MACHINE {
        // x86-64 machine in a 32-bit file is the x32 ABI, which Workers don't have.
        let class = if class == 1 && number == MACHINE { " in its 32-bit form" } else { "" };
        return Err(BinaryError::Machine { found: format!("{}{class}", machine(number)) });
    }
    Ok(())
}

fn loader(name: &[u8]) -> Result<Linkage, BinaryError> {
    let name = name.strip_suffix(b"\0").unwrap_or(name);
    let text = std::str::from_utf8(name)
        .map_err(|_| BinaryError::Malformed("the loader's name is not text".to_owned()))?;
    let path = PathBuf::from(text);
    let refused = |why| Err(BinaryError::Loader { path: path.clone(), why });
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !plain || !LIBRARY_FOLDERS.iter().any(|folder| path.starts_with(folder)) {
        return refused("is not below /lib or /usr/lib, where Workers find theirs");
    }
    if text.contains('\0') || !Path::new(text).is_file() {
        return refused("is not on this machine");
    }
    Ok(Linkage::Dynamic { interpreter: path })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_bytes(bytes: &[u8]) -> Result<Linkage, BinaryError> {
        check_data(bytes, bytes.len() as u64).map(|program| program.linkage)
    }

    /// The flags of the program headers of a type become these.
    fn with_flags(mut bytes: Vec<u8>, kind: u32, flags: u32) -> Vec<u8> {
        let at = usize::try_from(u64::from_le_bytes(bytes[32..40].try_into().unwrap())).unwrap();
        let count = usize::from(u16::from_le_bytes(bytes[56..58].try_into().unwrap()));
        for header in bytes[at..].chunks_exact_mut(56).take(count) {
            if header[..4] == kind.to_le_bytes() {
                header[4..8].copy_from_slice(&flags.to_le_bytes());
            }
        }
        bytes
    }

    #[test]
    fn memory_that_is_written_and_run_is_seen() {
        let own = || std::fs::read("/proc/self/exe").unwrap();
        let of = |bytes: Vec<u8>| check_data(&bytes[..], bytes.len() as u64).unwrap().writes_code;
        assert_eq!(of(own()), None);
        assert!(of(with_flags(own(), 0x6474_e551, 7)).unwrap().contains("stack"));
        assert!(of(with_flags(own(), 1, 7)).unwrap().contains("segment"));
        assert_eq!(of(with_flags(own(), 1, 6)), None);
        // p_memsz of what is executable, one byte more than p_filesz.
        let mut tail = own();
        let at = usize::try_from(u64::from_le_bytes(tail[32..40].try_into().unwrap())).unwrap();
        let count = usize::from(u16::from_le_bytes(tail[56..58].try_into().unwrap()));
        let mut longer = 0;
        for header in tail[at..].chunks_exact_mut(56).take(count) {
            if header[..8] == [1, 0, 0, 0, 5, 0, 0, 0] {
                let length = u64::from_le_bytes(header[32..40].try_into().unwrap()) + 1;
                header[40..48].copy_from_slice(&length.to_le_bytes());
                longer += 1;
            }
        }
        assert!(longer > 0);
        assert!(of(tail).unwrap().contains("longer"));
    }

    fn own() -> Vec<u8> {
        std::fs::read("/proc/self/exe").unwrap().into_iter().take(4096).collect()
    }

    #[test]
    fn a_real_program_passes() {
        let program = check(File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(matches!(program.linkage, Linkage::Dynamic { .. }));
    }

    #[test]
    fn each_mistake_has_its_words() {
        let with = |at: usize, bytes: &[u8]| {
            let mut own = own();
            own[at..at + bytes.len()].copy_from_slice(bytes);
            check_bytes(&own).unwrap_err().to_string()
        };
        for (error, says) in [
            (check_bytes(b"").unwrap_err().to_string(), "empty"),
            (check_bytes(b"#!/bin/sh\necho").unwrap_err().to_string(), "script (\"#!/bin/sh\")"),
            (check_bytes(b"hello").unwrap_err().to_string(), "starts with 68 65 6c 6c"),
            (check_bytes(b"\x7fELF\x02\x01").unwrap_err().to_string(), "ends inside its header"),
            (with(18, &[243, 0]), "for RISC-V"),
            (with(4, &[1]), "32-bit form"),
            (with(16, &[1, 0]), "object file"),
            (with(16, &[4, 0]), "core dump"),
            (with(24, &[0; 8]), "entry point"),
            (check_bytes(&own()).unwrap_err().to_string(), "cut short"),
        ] {
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn one_loader_is_enough() {
        let path = std::fs::read("/proc/self/exe").unwrap();
        let phoff = usize::try_from(u64::from_le_bytes(path[32..40].try_into().unwrap())).unwrap();
        let count = usize::from(u16::from_le_bytes([path[56], path[57]]));
        let headers = || (0..count).map(|number| phoff + 56 * number);
        let kind = |at: usize| u32::from_le_bytes(path[at..at + 4].try_into().unwrap());
        let loader = headers().find(|at| kind(*at) == 3).unwrap();
        let note = headers().find(|at| kind(*at) == 4).unwrap();
        let mut two = path.clone();
        two.copy_within(loader..loader + 56, note);
        let error = check_bytes(&two).unwrap_err().to_string();
        assert!(error.contains("two loaders"), "{error}");
    }

    #[test]
    fn a_loader_must_be_a_loader() {
        for (name, says) in [
            ("/etc/passwd", "not below /lib"),
            ("/lib/../etc/passwd", "not below /lib"),
            ("ld.so", "not below /lib"),
            ("/lib/no-such-loader.so", "not on this machine"),
        ] {
            let error = loader(format!("{name}\0").as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_on_noise(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = check_bytes(&bytes);
        }

        #[test]
        fn never_panics_on_a_damaged_program(
            changes in proptest::collection::vec((0usize..1024, any::<u8>()), 1..24),
            length in 0usize..4096,
        ) {
            let mut bytes = own();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            bytes.truncate(length);
            let _ = check_bytes(&bytes);
        }
    }
}
