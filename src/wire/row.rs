//! Rows: the values of a change, in the order of the columns of its relation.

use std::fmt;

use bytes::Bytes;

use super::proto::SatOpRow;

/// Why a row does not fit its relation. It never quotes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// There is one value for each column.
    #[error("{values} values for {columns} columns")]
    Arity {
        /// How many columns the relation has.
        columns: usize,
        /// How many values the row has.
        values: usize,
    },
    /// There is one bit for each column.
    #[error("a null bitmask of {bytes} bytes for {columns} columns")]
    ShortBitmask {
        /// How many columns the relation has.
        columns: usize,
        /// How long the bitmask is.
        bytes: usize,
    },
    /// What is null has an empty value.
    #[error("a value in column {column}, which is null")]
    NullWithValue {
        /// The column, counted from 0.
        column: usize,
    },
}

/// A row that fits its relation. `Debug` does not show the values.
///
/// ```
/// use electric_satellite::wire::proto::SatOpRow;
///
/// let row: SatOpRow = [Some("a"), None, Some("")].into_iter().collect();
/// assert_eq!(row.nulls_bitmask.as_ref(), [0b0100_0000]);
///
/// let values = row.read(3)?;
/// assert_eq!(values.get(0).unwrap(), "a");
/// assert_eq!(values.get(1), None); // null
/// assert_eq!(values.get(2).unwrap(), ""); // the empty text, which is another thing
/// assert_eq!(values.iter().flatten().count(), 2);
///
/// assert!(row.read(4).is_err()); // of another relation
/// # Ok::<_, electric_satellite::wire::RowError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Row<'a>(&'a SatOpRow);

impl SatOpRow {
    /// Reads the row as one of a relation with so many columns. Bits beyond those do not matter.
    ///
    /// # Errors
    ///
    /// See [`RowError`].
    pub fn read(&self, columns: usize) -> Result<Row<'_>, RowError> {
        let (values, bytes) = (self.values.len(), self.nulls_bitmask.len());
        if values != columns {
            return Err(RowError::Arity { columns, values });
        }
        if bytes < columns.div_ceil(8) {
            return Err(RowError::ShortBitmask { columns, bytes });
        }
        let mut filled = self.values.iter().enumerate().filter(|(_, value)| !value.is_empty());
        match filled.find(|(column, _)| self.is_null(*column)) {
            Some((column, _)) => Err(RowError::NullWithValue { column }),
            None => Ok(Row(self)),
        }
    }

    /// The first column is the most significant bit of the first byte.
    fn is_null(&self, column: usize) -> bool {
        self.nulls_bitmask[column / 8] & (0x80 >> (column % 8)) != 0
    }
}

impl<V: Into<Bytes>> FromIterator<Option<V>> for SatOpRow {
    /// The row with these values, `None` for null, in the order of the columns.
    fn from_iter<I: IntoIterator<Item = Option<V>>>(values: I) -> SatOpRow {
        let (mut bitmask, mut row) = (vec![], vec![]);
        for (column, value) in values.into_iter().enumerate() {
            if column % 8 == 0 {
                bitmask.push(0);
            }
            if value.is_none() {
                bitmask[column / 8] |= 0x80 >> (column % 8);
            }
            row.push(value.map_or_else(Bytes::new, V::into));
        }
        SatOpRow { nulls_bitmask: bitmask.into(), values: row }
    }
}

impl<'a> Row<'a> {
    /// How many columns it has.
    pub fn columns(self) -> usize {
        self.0.values.len()
    }

    /// The value in a column, counted from 0; `None` if it is null or there is no such column.
    pub fn get(self, column: usize) -> Option<&'a Bytes> {
        self.0.values.get(column).filter(|_| !self.0.is_null(column))
    }

    /// The values in the order of the columns, `None` for null.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Option<&'a Bytes>> {
        (0..self.columns()).map(move |column| self.get(column))
    }
}

impl fmt::Debug for Row<'_> {
    /// How many columns it has, and no more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row([{} columns])", self.columns())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn row(bitmask: &[u8], values: &[&'static str]) -> SatOpRow {
        let values = values.iter().copied().map(Bytes::from).collect();
        SatOpRow { nulls_bitmask: bitmask.to_vec().into(), values }
    }

    #[test]
    fn the_bitmask_begins_with_the_most_significant_bit() {
        // The originals' own tests hold these two.
        let nulls = [0, 1, 3, 8];
        let built: SatOpRow = (0..9).map(|n| (!nulls.contains(&n)).then_some("")).collect();
        assert_eq!(built.nulls_bitmask.as_ref(), [0b1101_0000, 0b1000_0000]);

        let read = row(&[0b0010_1000], &["a", "", "", "b", "", "c"]);
        let values: Vec<_> = read.read(6).unwrap().iter().map(|value| value.is_some()).collect();
        assert_eq!(values, [true, true, false, true, false, true]);
    }

    #[test]
    fn there_is_a_value_for_each_column() {
        let two = row(&[0], &["a", "b"]);
        assert!(two.read(2).is_ok());
        assert_eq!(two.read(1).unwrap_err(), RowError::Arity { columns: 1, values: 2 });
        assert_eq!(two.read(3).unwrap_err(), RowError::Arity { columns: 3, values: 2 });
    }

    #[test]
    fn there_is_a_bit_for_each_column() {
        let eight = ["v"; 8];
        assert!(row(&[0], &eight).read(8).is_ok());
        assert!(row(&[0, 0, 0], &eight).read(8).is_ok());
        let short = RowError::ShortBitmask { columns: 8, bytes: 0 };
        assert_eq!(row(&[], &eight).read(8).unwrap_err(), short);
        let short = RowError::ShortBitmask { columns: 9, bytes: 1 };
        assert_eq!(row(&[0], &["v"; 9]).read(9).unwrap_err(), short);
        assert!(row(&[], &[]).read(0).is_ok());
    }

    #[test]
    fn what_is_null_has_no_value() {
        assert!(row(&[0x40], &["a", ""]).read(2).is_ok());
        let error = row(&[0x40], &["a", "b"]).read(2).unwrap_err();
        assert_eq!(error, RowError::NullWithValue { column: 1 });
        let mut nine = ["v"; 9];
        nine[0] = "";
        let error = row(&[0x80, 0x80], &nine).read(9).unwrap_err();
        assert_eq!(error, RowError::NullWithValue { column: 8 });
        // The bits left over mean nothing.
        assert!(row(&[0x3f], &["a", "b"]).read(2).is_ok());
    }

    #[test]
    fn debug_shows_no_value() {
        let secret = row(&[0], &["secret"]);
        assert_eq!(format!("{:?}", secret.read(1).unwrap()), "Row([1 columns])");
    }

    proptest! {
        #[test]
        fn building_and_reading_are_inverse(
            values in vec(option::of(vec(any::<u8>(), 0..3)), 0..40),
        ) {
            let row: SatOpRow = values.iter().cloned().collect();
            let read = row.read(values.len()).unwrap();
            let back: Vec<_> = read.iter().map(|value| value.map(|bytes| bytes.to_vec())).collect();
            prop_assert_eq!(back, values);
            prop_assert_eq!(read.get(read.columns()), None);
        }

        #[test]
        fn no_row_panics(
            bitmask in vec(any::<u8>(), 0..4),
            values in vec(vec(any::<u8>(), 0..2), 0..20),
            columns in 0..24_usize,
        ) {
            let values = values.into_iter().map(Bytes::from).collect();
            let row = SatOpRow { nulls_bitmask: bitmask.into(), values };
            if let Ok(read) = row.read(columns) {
                prop_assert_eq!(read.iter().count(), columns);
            }
        }
    }
}
