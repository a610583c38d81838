//! Writes `vectors/` from the fixed keys and prints the number of vectors. It leaves other files
//! alone, for a person to delete.

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    let made = relay_tests::vectors::made();
    for (name, text) in &made {
        let path = relay_tests::vectors::directory().join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, text)?;
    }
    writeln!(io::stdout(), "{} vectors", made.len())
}
