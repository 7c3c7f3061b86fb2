"""The mutants that are no faults: changes that no input, cotangent or transform can show.

A row is a reason and its mutants, "rule,rule/operator/label"; the label "*" stands for every one.
They do not count as faults: to reject one is a false alarm, or the reason is wrong.
"""

REASONS = {
    # Nothing is left to be lost, scaled or differentiated.
    "the cotangent is zero already where the argument is negative": """
        relu_maximum,relu_where,safe_sqrt/negative_half/0 relu_jvp,safe_log_jvp/negative_half/y0""",
    "the cotangent is zero already beyond the bounds, which lie within the threshold": """
        hard_tanh/lose_tail/0 hard_tanh/early_threshold/0
        clamp_jvp/lose_tail/y0 clamp_jvp/early_threshold/y0""",
    "the residual is only compared, and a comparison has no derivative that could be lost": """
        relu_maximum,minimum_columns/stopped_residuals/residuals
        relu_maximum,minimum_columns/scaled_second_order/residuals""",
    # Either side of the comparison is right.
    "the definition takes the mean of both sides: it states no choice, and 1 is as good as 0": """
        relu_jvp,clamp_jvp/other_side_of_kink/0:gt clamp_jvp/other_side_of_kink/1:lt""",
    "series and quotient agree where |x| is one half": "sinc_jvp/other_side_of_kink/0:lt",
    "the first derivative is the same; the second jumps there, and is right on one side": """
        elu/other_side_of_kink/1:gt""",
    # Sums that begin with zeros, and indices that never meet.
    "only the zeros that the sum starts from are overwritten or left out": """
        depthwise_conv,conv_transpose,sinc_jvp/lose_summand/0:add[0]
        conv1d,avg_pool/overwrite_duplicates/0:scatter-add""",
    "the series' last term is below 1e-17 of its first": "sinc_jvp/lose_summand/0:add[1]",
    "the random numbers begin at 0, which is added": "dropout/lose_summand/2:add[1]",
    "the k places in a row are all different": "top_k/overwrite_duplicates/0:scatter-add",
    "a random number that moves by a millionth crosses the rate once in millions of draws": """
        dropout/perturb_equation/0:bitcast_convert_type
        dropout/perturb_equation/2:sub dropout/perturb_equation/4:add""",
    "the cotangent is a symmetric matrix": "quadratic_form/transpose/1 cholesky/transpose/0",
    "the matrix is as large as the one that is an argument": "quadratic_form/one_hot_product/0",
    # Quotients a/b whose divisor cannot be large, nor small: ab/b² overflows only for cotangents
    # within a factor of b of the largest number.
    "the divisor is a count, whose square is exact and far from overflow": """
        minimum_columns,masked_mean,batch_norm,layer_norm,rms_norm/square_the_divisor/*
        standardize,avg_pool,global_avg_pool,rotary/square_the_divisor/*""",
    "the divisor is a sum of exponentials between 1 and their number: so is its square": """
        logsumexp,cross_entropy_labels,attention,softmax_columns_jvp/square_the_divisor/*""",
    "the domain keeps the divisor between 0.3 and 3, and its square within 0.1 and 9": """
        newton_sqrt,kepler/square_the_divisor/*""",
    "the divisor is a constant of the order of 1, and so is its square": """
        dropout/square_the_divisor/* gelu_erf/square_the_divisor/0:div
        gelu_erf/square_the_divisor/1:div""",
    "where the square of the divisor overflows, the quotient is below the normal numbers": """
        softsign/square_the_divisor/0:div""",
    "the rule's own clip keeps the exponentials finite, and 1 + tanh cancels in either form": """
        gelu_tanh/overflowing_sigmoid/0:tanh""",
    # Rows that the rule mixes by itself.
    "a column has one cotangent: a NaN anywhere in it is a NaN in every row": """
        batch_norm,weight_norm/touch_other_rows/0 softmax_columns_jvp/touch_other_rows/y0""",
    "an inverse mixes all elements: a NaN anywhere is a NaN everywhere": """
        inverse,equilibrium/touch_other_rows/0""",
}

EQUIVALENT: dict[tuple[str, str, str], str] = {
    (rule, operator, label): reason
    for reason, mutants in REASONS.items()
    for rules, operator, label in (mutant.split("/") for mutant in mutants.split())
    for rule in rules.split(",")
}
