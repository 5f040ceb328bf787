//! What a published schema must look like beyond what the types alone say: no nulls, one-paragraph descriptions, typed lists. Pure.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// The definition as it is published.
#[must_use]
pub(super) fn published(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            tidy(schema);
        }
    }
    definition
}

/// An absent field and a null one would be two ways to say the same, which CEL rules tell apart: only absence stays.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    if let Some(description) = &mut schema.description {
        *description = first_paragraph(description);
    }
    if schema.type_.as_deref() == Some("array") && schema.x_kubernetes_list_type.is_none() {
        schema.x_kubernetes_list_type = Some("atomic".into());
    }
    children(schema).for_each(tidy);
}

fn children(schema: &mut JSONSchemaProps) -> impl Iterator<Item = &mut JSONSchemaProps> {
    let items: Vec<&mut JSONSchemaProps> = match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => vec![item],
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().collect(),
        None => Vec::new(),
    };
    let values = match &mut schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(value)) => Some(value.as_mut()),
        _ => None,
    };
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).chain(items).chain(values)
}

/// Upstream types bring whole chapters; `kubectl explain` wants the first paragraph, on one line.
fn first_paragraph(text: &str) -> String {
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_cut_after_its_first_paragraph() {
        assert_eq!(first_paragraph("One\n line.\n\nMore."), "One line.");
        assert_eq!(first_paragraph(""), "");
    }

    #[test]
    fn nulls_go_at_every_depth_and_lists_get_a_type() {
        let mut schema: JSONSchemaProps = serde_json::from_value(serde_json::json!({
            "type": "object",
            "properties": {"list": {"type": "array", "nullable": true,
                "items": {"type": "object", "additionalProperties": {"type": "string", "enum": ["a", null]}}}}
        }))
        .unwrap();
        tidy(&mut schema);
        let expected = serde_json::json!({
            "type": "object",
            "properties": {"list": {"type": "array", "x-kubernetes-list-type": "atomic",
                "items": {"type": "object", "additionalProperties": {"type": "string", "enum": ["a"]}}}}
        });
        assert_eq!(serde_json::to_value(&schema).unwrap(), expected);
    }
}
