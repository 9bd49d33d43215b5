package main

import (
	"context"
	"fmt"
	"math"
	"sort"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// judgeDefinition is what the API server asks before it takes a new definition.
func judgeDefinition(definition *apiextensions.CustomResourceDefinition) definitionVerdict {
	v := definitionVerdict{
		Errors:     toErrors(crdvalidation.ValidateCustomResourceDefinition(context.Background(), definition)),
		Rules:      []ruleCost{},
		TotalLimit: crdvalidation.StaticEstimatedCRDCostLimit,
		RuleLimit:  crdvalidation.StaticEstimatedCostLimit,
	}
	if len(v.Errors) > 0 {
		return v
	}
	v.Rules = ruleCosts(schemaOf(definition), crdvalidation.RootCELContext(schemaOf(definition)), "")
	for _, rule := range v.Rules {
		v.TotalCost += rule.Cost + rule.MessageCost
	}
	return v
}

// ruleCosts returns the estimate of every rule below a node, as the API server computes it: the worst case of one evaluation times the
// most often that the node can occur. The definition must have been found valid.
func ruleCosts(schema *apiextensions.JSONSchemaProps, node *crdvalidation.CELSchemaContext, path string) []ruleCost {
	var found []ruleCost
	if len(schema.XValidations) > 0 {
		info, err := node.TypeInfo()
		if err != nil {
			fail(err)
		}
		env := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion(), true)
		results, err := cel.Compile(info.Schema, info.DeclType, celconfig.PerCallLimit, env, cel.NewExpressionsEnvLoader())
		if err != nil {
			fail(err)
		}
		for i, result := range results {
			times := result.MaxCardinality
			if node.MaxCardinality != nil {
				times = *node.MaxCardinality
			}
			cost := uint64(math.MaxUint64)
			if result.MaxCost == 0 || times <= math.MaxUint64/result.MaxCost {
				cost = result.MaxCost * times
			}
			found = append(found, ruleCost{
				Path:        fmt.Sprintf("%s[%d]", path, i),
				Rule:        schema.XValidations[i].Rule,
				Cost:        cost,
				MessageCost: result.MessageExpressionMaxCost,
			})
		}
	}
	names := make([]string, 0, len(schema.Properties))
	for name := range schema.Properties {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		property := schema.Properties[name]
		found = append(found, ruleCosts(&property, node.ChildPropertyContext(&property, name), path+"."+name)...)
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		found = append(found, ruleCosts(schema.Items.Schema, node.ChildItemsContext(schema.Items.Schema), path+"[]")...)
	}
	return found
}
