//! `loadgen schema`: what a report looks like, as a JSON Schema made from the types themselves.
//!
//! Knows: the report's type. Must not know: any report.

use std::io::Write as _;

use crate::report::Report;

/// Prints it.
pub(crate) fn print() {
    // A closed standard output is the reader's wish.
    let _ = writeln!(std::io::stdout(), "{:#}", schema().as_value());
}

fn schema() -> schemars::Schema {
    schemars::generate::SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<Report>()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_field_says_what_it_is() {
        let schema = schema();
        let mut fields = 0;
        check("report", schema.as_value(), &mut fields);
        assert!(fields > 120, "{fields}");
    }

    /// Everything under `properties`, however deep.
    fn check(path: &str, value: &Value, fields: &mut usize) {
        match value {
            Value::Object(object) => {
                for (name, field) in
                    object.get("properties").and_then(Value::as_object).into_iter().flatten()
                {
                    *fields += 1;
                    let text = field.get("description").and_then(Value::as_str);
                    assert!(text.is_some_and(|text| !text.is_empty()), "{path}.{name}: {field}");
                }
                for (name, inner) in object {
                    check(&format!("{path}.{name}"), inner, fields);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| check(path, item, fields)),
            _ => {}
        }
    }
}
