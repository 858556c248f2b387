//! What a vector is called where people are shown it: by the name that the guest gives it, and by
//! its number where the guest gives none. Knows no vector of any guest.

use super::Vector;

/// The name of the vector `number` among `vectors`, or else its number.
pub fn name(vectors: &[Vector], number: u8) -> String {
    let known = vectors.iter().find(|it| it.number == number);
    known.map_or_else(|| format!("{number:#04x}"), |it| it.name.clone())
}

/// Its name and its number: `many (0xfc)`. Only the number if it has no name.
pub fn name_and_number(vectors: &[Vector], number: u8) -> String {
    match vectors.iter().find(|it| it.number == number) {
        Some(known) => format!("{} ({number:#04x})", known.name),
        None => format!("{number:#04x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::manifest::VectorRole;

    #[test]
    fn a_vector_goes_by_its_name_where_it_has_one() {
        let many = Vector {
            number: 0xfc,
            name: "many".to_owned(),
            role: VectorRole::Call,
            about: String::new(),
        };
        let named = [many];
        assert_eq!(name(&named, 0xfc), "many");
        assert_eq!(name_and_number(&named, 0xfc), "many (0xfc)");
        assert_eq!(name(&named, 2), "0x02");
        assert_eq!(name_and_number(&named, 2), "0x02");
    }
}
