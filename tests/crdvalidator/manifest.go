package main

import (
	"context"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// judge holds what the API server keeps for one version of a custom resource.
type judge struct {
	structural *structuralschema.Structural
	schema     validation.SchemaValidator
	rules      *cel.Validator
}

func newJudge(definition *apiextensions.CustomResourceDefinition) (*judge, error) {
	structural, err := structuralschema.NewStructural(schemaOf(definition))
	if err != nil {
		return nil, err
	}
	schema, _, err := validation.NewSchemaValidator(schemaOf(definition))
	if err != nil {
		return nil, err
	}
	return &judge{structural: structural, schema: schema, rules: cel.NewValidator(structural, true, celconfig.PerCallLimit)}, nil
}

// judge follows the order of the API server: prune, drop nulls, default, then schema, list types, rules.
func (j *judge) judge(r request) verdict {
	unknown := pruning.PruneWithOptions(r.Object, j.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, object := range []map[string]interface{}{r.Object, r.Old} {
		if object != nil {
			defaulting.PruneNonNullableNullsWithoutDefaults(object, j.structural)
			defaulting.Default(object, j.structural)
		}
	}
	var errs field.ErrorList
	if r.Old != nil {
		errs = validation.ValidateCustomResourceUpdate(nil, r.Object, r.Old, j.schema)
	} else {
		errs = validation.ValidateCustomResource(nil, r.Object, j.schema)
	}
	errs = append(errs, objectmeta.Validate(nil, r.Object, j.structural, false)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, j.structural, r.Object)...)
	remaining := int64(celconfig.RuntimeCELCostBudget)
	if !blocks(errs) {
		var old interface{}
		if r.Old != nil {
			old = r.Old
		}
		var broken field.ErrorList
		broken, remaining = j.rules.Validate(context.Background(), nil, j.structural, r.Object, old, celconfig.RuntimeCELCostBudget)
		errs = append(errs, broken...)
	}
	return verdict{Errors: toErrors(errs), Unknown: unknown, Cost: celconfig.RuntimeCELCostBudget - remaining, Object: r.Object}
}

// blocks is the API server's hasBlockingErr: after these the rules are not asked.
func blocks(errs field.ErrorList) bool {
	for _, err := range errs {
		switch err.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return true
		}
	}
	return false
}
